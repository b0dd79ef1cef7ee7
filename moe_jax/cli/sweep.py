"""`moe-jax sweep`: trains the grid of a config on this machine."""

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_jax import errors
from moe_jax.cli import command, rules
from moe_jax.config import config_file
from moe_jax.errors import UserError

if TYPE_CHECKING:
    from moe_jax.sweep.run_state import RunState
    from moe_jax.sweep.workdir import Workdir

DESCRIPTION = """Trains every run of a config's grid that has no result yet, in processes whose crash ends one run only.
It may be stopped at any moment; the same command goes on where it was. A grid that contains the workdir's grid
unchanged extends it; any other grid is refused."""


def main(argv: Sequence[str]) -> int:
    config_args, others = config_file.split(argv)
    parser = command.parser("sweep", DESCRIPTION)
    parser.add_argument("--workdir", required=True, metavar="W", help="folder or gs:// of the sweep")
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="runs at a time (default 1)")
    parser.add_argument(
        "--rerun", action="append", default=[], metavar="NAME",
        help="move the run's folder aside and train it again; the same command given again goes on with it",
    )  # fmt: skip
    rules.add_flags(parser)
    parser.epilog = config_file.HELP
    flags = parser.parse_args(others)
    if flags.jobs < 1:
        raise UserError(f"--jobs={flags.jobs}: must be at least 1")

    from moe_jax.progress import Display
    from moe_jax.sweep import from_config
    from moe_jax.sweep.launchers.local_jobs import LocalJobs
    from moe_jax.sweep.workdir import Workdir

    file = rules.load(config_args, flags)
    workdir = Workdir(flags.workdir)
    began = time.monotonic()
    manifest, _, _ = from_config.enter(file, workdir, whole_grid=True)
    if file.remarks:
        print("\n".join(file.remarks))
    for name in flags.rerun:
        if name not in {run.name for run in manifest.runs}:
            raise UserError(f"--rerun={name}: the sweep has no such run; moe-jax status lists them")
    asides = workdir.asides()
    for name in flags.rerun:
        if name not in asides or workdir.run_dir(name).result_path.exists():  # else it goes on
            workdir.set_run_aside(name)
    with Display() as display:
        states = LocalJobs(workdir, manifest.runs, flags.jobs, display).train()
    return conclude(workdir, states, time.monotonic() - began)


def conclude(workdir: "Workdir", states: Sequence["RunState"], seconds: float) -> int:
    """Prints the state of a sweep after its runs have ended. Raises WorkFailed where runs have no result."""
    from moe_jax.cli import status
    from moe_jax.sweep.run_state import State

    status.main([f"--workdir={workdir.path}"])
    failed = [s for s in states if s.result is None]
    diverged = [s.name for s in states if s.state == State.DIVERGED]
    print(f"{len(states) - len(failed)} of {len(states)} runs have a result, after {seconds:.0f} s")
    if diverged:
        print(f"diverged: {', '.join(diverged)}")
    if failed:
        raise errors.WorkFailed(
            f"{len(failed)} of {len(states)} runs failed, the first {failed[0].name}: {failed[0].sentence}; "
            "the same command tries them again"
        )
    return errors.DONE
