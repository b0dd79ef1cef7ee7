"""`moe-jax sweep`: the grid of a config on this machine."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_jax import command, configfile, errors
from moe_jax.errors import UserError

if TYPE_CHECKING:
    from moe_jax.runstate import RunState
    from moe_jax.workdir import Workdir

DESCRIPTION = """Trains every run of a config's grid that has no result yet, each in a process of its own.
Stopped at any moment and started again with the same flags, it goes on where it was. A grid that contains the workdir's
old one unchanged extends it; another one is refused."""


def main(argv: Sequence[str]) -> int:
    config_args, others = configfile.split(argv)
    parser = command.parser("sweep", DESCRIPTION)
    parser.add_argument("--workdir", required=True, metavar="W", help="folder or gs:// of the sweep")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default 1)")
    parser.add_argument(
        "--rerun",
        action="append",
        default=[],
        metavar="NAME",
        help="move the run's old folder aside and train it again; once, the same command then goes on with it",
    )
    parser.epilog = configfile.HELP
    flags = parser.parse_args(others)
    if flags.jobs < 1:
        raise UserError(f"--jobs={flags.jobs}: must be at least 1")

    from moe_jax import planning
    from moe_jax.launchers.local import LocalLauncher
    from moe_jax.progress import Display
    from moe_jax.workdir import Workdir

    file = configfile.load(config_args)
    workdir = Workdir(flags.workdir)
    began = time.monotonic()
    manifest, _, _ = planning.enter(file, workdir, whole_grid=True)
    if file.refused:
        print("\n".join(file.refused))
    for name in flags.rerun:
        if name not in {run.name for run in manifest.runs}:
            raise UserError(f"--rerun={name}: the sweep has no such run; moe-jax status lists them")
    asides = workdir.asides()
    for name in flags.rerun:
        if name not in asides or workdir.run_dir(name).result_path.exists():  # else it goes on
            workdir.set_run_aside(name)
    with Display() as display:
        states = LocalLauncher(workdir, manifest.runs, flags.jobs, display).go()
    return conclude(workdir, states, time.monotonic() - began)


def conclude(workdir: "Workdir", states: Sequence["RunState"], seconds: float) -> int:
    """Says how a grid stands. Raises WorkFailed where runs have no result."""
    from moe_jax import status

    status.main([f"--workdir={workdir.path}"])
    failed = [s for s in states if s.result is None]
    diverged = [s.name for s in states if s.state == "diverged"]
    print(f"{len(states) - len(failed)} of {len(states)} runs have a result, after {seconds:.0f} s")
    if diverged:
        print(f"diverged: {', '.join(diverged)}")
    if failed:
        raise errors.WorkFailed(
            f"{len(failed)} of {len(states)} runs failed, the first {failed[0].name}: {failed[0].sentence}; "
            "the same command tries them again"
        )
    return errors.DONE


if __name__ == "__main__":
    command.end(main)
