"""`moe-jax train`: one run, a config's own or one of a sweep's."""

import argparse
import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path

from moe_jax import command, configfile, errors
from moe_jax.errors import UserError

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
    parser.add_argument(
        "--heartbeat_seconds", type=float, default=30.0, metavar="S", help="between signs of life (default 30)"
    )
    parser.add_argument(
        "--stop_with_parent", action="store_true", help="save and stop when standard input ends (set by sweep)"
    )
    _add_process_flags(parser)
    parser.epilog = configfile.HELP
    flags = parser.parse_args(others)
    if bool(config_args) == bool(flags.run):
        raise UserError("give a config file (--config=configs/smoke.py) or a run of the workdir's sweep (--run=NAME)")

    from moe_jax import planning, processes
    from moe_jax.workdir import Workdir

    processes.join(
        flags.coordinator, flags.num_processes, flags.process_id, flags.multihost, flags.distributed_heartbeat_seconds
    )
    workdir = Workdir(flags.workdir)
    if flags.run:
        manifest = workdir.existing_manifest()
        planned = manifest.run(flags.run)
        store = planning.reopen_store(manifest)
    else:
        file = configfile.load(config_args)
        manifest, runs, store = planning.enter(file, workdir, whole_grid=False, writes=processes.is_first())
        planned = manifest.run(runs[0].name)

    use_compilation_cache()
    from moe_jax import checkpoint, training
    from moe_jax.progress import Display, describe

    checkpoint.say_errors_once()
    with Display() as display:

        def show(beat):
            last = beat["step"] == beat["steps"]
            display.update(planned.name, beat["step"], beat["steps"], describe(beat), now=last or beat["step"] == 1)

        options = training.Options(display.say, show, flags.heartbeat_seconds, flags.stop_with_parent)
        if not processes.is_first():
            options = dataclasses.replace(options, say=lambda sentence: None, on_step=lambda beat: None)
        result = training.train(planned, workdir.run_dir(planned.name), store, manifest.store, options)
    if processes.is_first():
        print(_summary(result))
    return errors.DONE if result["status"] == "done" else errors.DIVERGED


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
    raise SystemExit(command.run(main))
