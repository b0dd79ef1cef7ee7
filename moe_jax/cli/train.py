"""`moe-jax train`: one run, a config's own or one of a sweep's."""

import argparse
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_jax import errors
from moe_jax.cli import command, rules
from moe_jax.config import config_file
from moe_jax.errors import UserError

if TYPE_CHECKING:
    from moe_jax.data.store import Store
    from moe_jax.progress import Display
    from moe_jax.sweep.heartbeat import Heartbeat
    from moe_jax.sweep.manifest import Manifest, PlannedRun
    from moe_jax.sweep.result import Result, TrunkResult
    from moe_jax.sweep.workdir import Workdir
    from moe_jax.training.options import Options
    from moe_jax.training.program import Programs

DESCRIPTION = """Trains one run: that of a config file (its grid is left to sweep), or run NAME of a sweep's workdir.
Stopped at any moment and started again with the same flags, it goes on where it was and gives the same bits."""


def main(argv: Sequence[str], programs: "Programs | None" = None) -> int:
    """`programs` hold what this process has compiled before."""
    config_args, others = config_file.split(argv)
    flags = _parser().parse_args(others)
    _check(flags, config_args)

    from moe_jax.sweep import from_config
    from moe_jax.sweep.workdir import Workdir
    from moe_jax.training import processes

    workdir = Workdir(flags.workdir)
    file = rules.load(config_args, flags, whole_grid=False) if config_args else None
    asked = from_config.entered_before(file, workdir) if file else _runs(workdir.existing_manifest(), flags)
    if results := _finished(workdir, asked):
        return _end(results)
    processes.join(
        flags.coordinator, flags.num_processes, flags.process_id, flags.multihost, flags.distributed_heartbeat_seconds
    )
    processes.check_same(" ".join([*config_args, *flags.rule]) or flags.run or flags.trunk or flags.pack)
    if file:
        manifest, runs, store = from_config.enter(file, workdir, whole_grid=False, writes=processes.is_first())
        runs = [manifest.run(runs[0].name)]
        if file.said and processes.is_first():
            print("\n".join(file.said))
    else:
        manifest = workdir.existing_manifest()
        runs, store = _runs(manifest, flags), from_config.reopen_store(manifest)
    store = _near(store, workdir, manifest, runs, flags)

    from moe_jax.progress import Display
    from moe_jax.training import checkpoint, loop
    from moe_jax.training.compile_cache import use_compilation_cache
    from moe_jax.training.program import Programs

    use_compilation_cache()
    checkpoint.say_errors_once()
    results, programs = [], programs or Programs()
    with Display() as display:
        for goals in _goals(workdir, manifest, runs, flags):
            results += loop.train(goals, store, manifest.store, _options(display, flags), programs)
    return _end(results, processes.is_first())


def _goals(workdir: "Workdir", manifest: "Manifest", runs: "Sequence[PlannedRun]", flags: argparse.Namespace):
    """Lists of goals: the lists are trained one after the other, the goals of a list together (a pack)."""
    from moe_jax.sweep import jobs
    from moe_jax.training.goal import run_goal, trunk_goal

    if flags.trunk:
        yield [trunk_goal(jobs.trunk_called(manifest.runs, flags.trunk), workdir, manifest.store)]
    if flags.pack:
        yield [run_goal(run, workdir, manifest.store) for run in runs]
        return
    for run in runs:
        yield [run_goal(run, workdir, manifest.store, jobs.trunk_of(manifest.runs, run.name))]


def _near(
    store: "Store", workdir: "Workdir", manifest: "Manifest", runs: "Sequence[PlannedRun]", flags: argparse.Namespace
) -> "Store":
    """The store, or its copy on this host's disk where the config asks for one and something is left to train."""
    from moe_jax.data import cache
    from moe_jax.sweep import jobs

    if flags.trunk:
        open_runs = [jobs.trunk_called(manifest.runs, flags.trunk).planned]
    else:
        open_runs = [run for run in runs if not workdir.run_dir(run.name).result_path.exists()]
    folder = open_runs[0].config.data.cache if open_runs else None
    return store if folder is None else cache.local_copy(store, folder)


def _options(display: "Display", flags: argparse.Namespace) -> "Options":
    """The options of training; only the first process shows progress."""
    from moe_jax.training import processes
    from moe_jax.training.options import Options

    if not processes.is_first():
        return Options(
            say=lambda sentence: None,
            heartbeat_seconds=flags.heartbeat_seconds,
            stop_with_parent=flags.stop_with_parent,
        )

    def show(name: str, heartbeat: "Heartbeat") -> None:
        step, steps = heartbeat.step, heartbeat.steps
        display.update(name, step, steps, heartbeat.describe(), now=step in (1, steps))

    return Options(display.say, show, flags.heartbeat_seconds, flags.stop_with_parent)


def _parser() -> argparse.ArgumentParser:
    parser = command.parser("train", DESCRIPTION)
    parser.add_argument(
        "--workdir", required=True, metavar="W", help="folder or gs:// of the sweep; the run's files are in W/runs/NAME"
    )
    parser.add_argument("--run", metavar="NAME", help="a run of the sweep in W, instead of --config")
    parser.add_argument("--trunk", metavar="NAME", help="a trunk of the sweep in W (schedule wsd), instead of --config")
    parser.add_argument("--pack", metavar="NAME", help="a pack of the sweep in W (sweep.pack), instead of --config")
    parser.add_argument("--branches", action="store_true", help="with --trunk: then train each of its branches, too")
    parser.add_argument(
        "--heartbeat_seconds", type=float, default=30.0, metavar="S", help="time between heartbeats (default 30)"
    )
    parser.add_argument(
        "--stop_with_parent", action="store_true",
        help="save and stop when standard input, a pipe, is closed (sweep sets this)",
    )  # fmt: skip
    rules.add_flags(parser)
    _add_process_flags(parser)
    parser.epilog = config_file.HELP
    return parser


def _check(flags: argparse.Namespace, config_args: Sequence[str]) -> None:
    if sum(map(bool, (config_args, flags.run, flags.trunk, flags.pack))) != 1:
        raise UserError(
            "give a config file (--config=configs/smoke.py), or a run (--run=NAME), a trunk (--trunk=NAME) or a pack "
            "(--pack=NAME) of the workdir's sweep"
        )
    if (flags.rule or flags.extrapolate) and not config_args:
        raise UserError("--rule: concerns a --config; the runs of a sweep have their values already")
    if not 0 < flags.heartbeat_seconds <= 3600:
        raise UserError(f"--heartbeat_seconds={flags.heartbeat_seconds:g}: must be above 0 and at most 3600")
    if flags.branches and not flags.trunk:
        raise UserError("--branches: trains the branches of a trunk; give --trunk=NAME")


def _end(results: "Sequence[Result | TrunkResult]", says: bool = True) -> int:
    if says:
        print("\n".join(map(_summary, results)))
    return errors.DONE if all(result.status == "done" for result in results) else errors.DIVERGED


def _runs(manifest: "Manifest", flags: argparse.Namespace) -> "Sequence[PlannedRun]":
    """The runs of the requested job; none where it is a trunk alone. Raises UserError where there is no such job."""
    from moe_jax.sweep import jobs

    if flags.run:
        return [manifest.run(flags.run)]
    if flags.pack:
        return jobs.pack_called(manifest.runs, flags.pack)
    trunk = jobs.trunk_called(manifest.runs, flags.trunk)
    return trunk.branches if flags.branches else []


def _finished(workdir: "Workdir", runs: "Sequence[PlannedRun]") -> list["Result"]:
    """The results of the runs, if every run has one, else []. Needs neither the store, which may be gone, nor the other
    processes, which may already train the next job of a list."""
    results = []
    for run in runs:
        try:
            result = workdir.run_dir(run.name).result()
        except UserError:  # damaged: to be made again
            return []
        if result is None or result.config_hash != run.config_hash:
            return []
        results.append(result)
    return results


def _add_process_flags(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group(
        "several processes", "the same command for each, which must see the same workdir and store"
    )
    group.add_argument("--coordinator", metavar="HOST:PORT", help="where process 0 listens")
    group.add_argument("--num_processes", type=int, metavar="N", help="how many there are")
    group.add_argument("--process_id", type=int, metavar="I", help="which one this is, from 0")
    group.add_argument("--multihost", action="store_true", help="instead of these three on a TPU pod, which knows them")
    group.add_argument(
        "--distributed_heartbeat_seconds",
        type=int,
        default=85,
        metavar="S",
        help="a process that is silent for so long is dead, and the others end (default 85)",
    )


def _summary(result: "Result | TrunkResult") -> str:
    from moe_jax.sweep.result import Result, Status

    if not isinstance(result, Result):
        if result.status == Status.DONE:
            return f"{result.name}: done, {result.steps} steps for its branches to start from"
        return f"{result.name}: diverged, the loss of step {result.steps} is not finite"
    if result.status == Status.DIVERGED:
        good = result.last_good_checkpoint
        kept = f"the last good checkpoint is of step {good}" if good is not None else "there is no checkpoint before it"
        return f"{result.name}: diverged, the loss of step {result.diverged_step} is not finite; {kept}"
    return (
        f"{result.name}: done, eval loss {result.eval_loss:.4f} nats/token, {result.bits_per_byte:.4f} bits/byte, "
        f"{result.tokens:,} tokens, {100 * result.dropped_fraction:.1f}% dropped, {result.wall_seconds:.0f} s"
    )
