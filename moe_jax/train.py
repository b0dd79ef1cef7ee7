"""`moe-jax train`: one run, a config's own or one of a sweep's."""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from moe_jax import command, configfile, errors
from moe_jax.errors import UserError

if TYPE_CHECKING:
    from moe_jax.manifest import Manifest, PlannedRun
    from moe_jax.workdir import Workdir

DESCRIPTION = """Trains one run: that of a config file (its grid is left to sweep), or run NAME of a sweep's workdir.
Stopped at any moment and started again with the same flags, it goes on where it was and gives the same bits."""


def main(argv: Sequence[str]) -> int:
    config_args, others = configfile.split(argv)
    parser = command.parser("train", DESCRIPTION)
    parser.add_argument(
        "--workdir",
        required=True,
        metavar="W",
        help="folder or gs:// of the sweep; the run's files are under W/runs/NAME",
    )
    parser.add_argument("--run", metavar="NAME", help="a run of the sweep in W, instead of --config")
    parser.add_argument("--trunk", metavar="NAME", help="a trunk of the sweep in W (schedule wsd), instead of --config")
    parser.add_argument("--pack", metavar="NAME", help="a pack of the sweep in W (sweep.pack), instead of --config")
    parser.add_argument("--branches", action="store_true", help="with --trunk: then each of its branches, too")
    parser.add_argument(
        "--heartbeat_seconds", type=float, default=30.0, metavar="S", help="between signs of life (default 30)"
    )
    parser.add_argument(
        "--stop_with_parent", action="store_true", help="save and stop when standard input ends (set by sweep)"
    )
    _add_process_flags(parser)
    parser.epilog = configfile.HELP
    flags = parser.parse_args(others)
    if sum(map(bool, (config_args, flags.run, flags.trunk, flags.pack))) != 1:
        raise UserError(
            "give a config file (--config=configs/smoke.py), or of the workdir's sweep a run (--run=NAME), a trunk "
            "(--trunk=NAME) or a pack (--pack=NAME)"
        )
    if not 0 < flags.heartbeat_seconds <= 3600:
        raise UserError(f"--heartbeat_seconds={flags.heartbeat_seconds:g}: must be above 0 and at most 3600")
    if flags.branches and not flags.trunk:
        raise UserError("--branches: are those of a trunk; give --trunk=NAME")

    from moe_jax import jobs, planning, processes
    from moe_jax.data import cache
    from moe_jax.workdir import Workdir

    workdir = Workdir(flags.workdir)
    file = configfile.load(config_args) if config_args else None
    asked = planning.entered_before(file, workdir) if file else _runs(workdir.existing_manifest(), flags)
    if results := _finished(workdir, asked):
        return _end(results)
    processes.join(
        flags.coordinator, flags.num_processes, flags.process_id, flags.multihost, flags.distributed_heartbeat_seconds
    )
    processes.check_same(" ".join(config_args) or flags.run or flags.trunk or flags.pack)
    trunk = None
    if file:
        manifest, runs, store = planning.enter(file, workdir, whole_grid=False, writes=processes.is_first())
        planned = [manifest.run(runs[0].name)]
    else:
        manifest = workdir.existing_manifest()
        store = planning.reopen_store(manifest)
        trunk = jobs.trunk_called(manifest.runs, flags.trunk) if flags.trunk else None
        planned = _runs(manifest, flags)

    to_train = [trunk.planned] if trunk else [r for r in planned if not workdir.run_dir(r.name).result_path.exists()]
    if to_train and (cache_folder := to_train[0].config.data.cache) is not None:
        store = cache.local_copy(store, cache_folder)

    use_compilation_cache()
    from moe_jax import checkpoint, packing, training
    from moe_jax.progress import Display, describe

    checkpoint.say_errors_once()
    results = []
    with Display() as display:

        def options(name: str) -> training.Options:
            def show(beat):
                last = beat["step"] == beat["steps"]
                display.update(name, beat["step"], beat["steps"], describe(beat), now=last or beat["step"] == 1)

            shown = training.Options(display.say, show, flags.heartbeat_seconds, flags.stop_with_parent)
            silent = dataclasses.replace(shown, say=lambda sentence: None, on_step=lambda beat: None)
            return shown if processes.is_first() else silent

        if trunk is not None:
            results.append(training.train_trunk(trunk, workdir, store, manifest.store, options(trunk.name)))
        if flags.pack:
            results += packing.train(planned, workdir, store, manifest.store, options)
            planned = []
        for run in planned:
            of = jobs.trunk_of(manifest.runs, run.name)
            start = None if of is None else workdir.trunk_dir(of.name)
            folder = workdir.run_dir(run.name)
            results.append(training.train(run, folder, store, manifest.store, options(run.name), start))
    return _end(results, processes.is_first())


def _end(results: Sequence[dict], says: bool = True) -> int:
    if says:
        print("\n".join(map(_summary, results)))
    return errors.DONE if all(r["status"] == "done" for r in results) else errors.DIVERGED


def _runs(manifest: "Manifest", flags: argparse.Namespace) -> "Sequence[PlannedRun]":
    """The runs of the job that is asked for, none of a trunk alone. Raises UserError where there is no such job."""
    from moe_jax import jobs

    if flags.run:
        return [manifest.run(flags.run)]
    if flags.pack:
        return jobs.pack_called(manifest.runs, flags.pack)
    trunk = jobs.trunk_called(manifest.runs, flags.trunk)
    return trunk.branches if flags.branches else []


def _finished(workdir: "Workdir", runs: "Sequence[PlannedRun]") -> list[dict]:
    """The results, where all have theirs. Asks neither for the store, which may be gone, nor for the other processes:
    where each works through a list of jobs they may be at the next one already."""
    results = []
    for run in runs:
        try:
            result = workdir.run_dir(run.name).result()
        except UserError:  # damaged: to be made again
            return []
        if result is None or result["config_hash"] != run.config_hash:
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


def use_compilation_cache() -> None:
    """Compiled programs outlive the process, so runs of one shape compile once: in JAX_COMPILATION_CACHE_DIR, or
    ours."""
    import jax

    default = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "moe_jax" / "xla"
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(default))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.5)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)


def _summary(result: dict) -> str:
    if "eval_loss" not in result:
        if result["status"] == "done":
            return f"{result['name']}: done, {result['steps']} steps for its branches to start from"
        return f"{result['name']}: diverged, the loss of step {result['steps']} is not finite"
    if result["status"] == "diverged":
        good = result["last_good_checkpoint"]
        kept = f"the last good checkpoint is of step {good}" if good is not None else "there is no checkpoint before it"
        return f"{result['name']}: diverged, the loss of step {result['diverged_step']} is not finite; {kept}"
    return (
        f"{result['name']}: done, eval loss {result['eval_loss']:.4f} nats/token, "
        f"{result['bits_per_byte']:.4f} bits/byte, "
        f"{result['tokens']:,} tokens, {100 * result['dropped_fraction']:.1f}% dropped, {result['wall_seconds']:.0f} s"
    )


if __name__ == "__main__":
    command.end(main)
