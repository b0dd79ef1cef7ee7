"""Runs on this machine that are started again where `restarts` says that it helps, as the clusters do it."""

from collections.abc import Sequence

from moe_jax import jobs as jobs_lib
from moe_jax.jobs import Trunk
from moe_jax.launchers import restarts
from moe_jax.launchers.local import LocalLauncher
from moe_jax.manifest import PlannedRun
from moe_jax.progress import Display
from moe_jax.runstate import RunState
from moe_jax.tables import count, number
from moe_jax.workdir import Workdir


def train(
    workdir: Workdir, runs: Sequence[PlannedRun], jobs: int, max_restarts: int, display: Display
) -> list[RunState]:
    """Trains `runs`, `jobs` at a time, each started at most 1 + `max_restarts` times. Gives their states in the end.

    Raises Stopped as LocalLauncher does."""
    states: dict[str, RunState] = {}
    trunks = {run.name: trunk for trunk in jobs_lib.trunks(runs) for run in trunk.branches}
    left = list(runs)
    for start in range(1 + max_restarts):
        states |= {state.name: state for state in LocalLauncher(workdir, left, jobs, display).go()}
        left = [run for run in left if states[run.name].result is None and _again(workdir, run, trunks.get(run.name))]
        if not left:
            break
        if start < max_restarts:
            display.say(f"{count(len(left), 'run')} started again, for the {start + 1}. time of at most {max_restarts}")
    return [states[run.name] for run in runs]


def _again(workdir: Workdir, run: PlannedRun, trunk: Trunk | None) -> bool:
    """By the code of its last start, or of its trunk's where that came later."""
    attempts = workdir.run_dir(run.name).attempts()
    if trunk is not None:
        attempts = sorted(
            [*attempts, *workdir.trunk_dir(trunk.name).attempts()], key=lambda a: number(a.get("began")) or 0
        )
    code = attempts[-1].get("exit_code") if attempts else None
    return not isinstance(code, int) or restarts.helps(code)
