"""Runs on this machine, started again after the exit codes that clusters restart on (restarts.py)."""

from collections.abc import Sequence

from moe_jax.progress import Display
from moe_jax.sweep import jobs as jobs_lib
from moe_jax.sweep.jobs import Trunk
from moe_jax.sweep.launchers import restarts
from moe_jax.sweep.launchers.local_jobs import LocalJobs
from moe_jax.sweep.manifest import PlannedRun
from moe_jax.sweep.run_state import RunState
from moe_jax.sweep.workdir import Workdir
from moe_jax.text import count


def train_with_restarts(
    workdir: Workdir, runs: Sequence[PlannedRun], jobs: int, max_restarts: int, display: Display
) -> list[RunState]:
    """Trains `runs`, `jobs` at a time, each started at most 1 + `max_restarts` times. Returns their final states.

    Raises Stopped as LocalJobs does."""
    states: dict[str, RunState] = {}
    trunks = {run.name: trunk for trunk in jobs_lib.trunks(runs) for run in trunk.branches}
    left = list(runs)
    for start in range(1 + max_restarts):
        states |= {state.name: state for state in LocalJobs(workdir, left, jobs, display).train()}
        left = [
            run for run in left
            if states[run.name].result is None and _is_restarted(workdir, run, trunks.get(run.name))
        ]  # fmt: skip
        if not left:
            break
        if start < max_restarts:
            display.say(f"restart {start + 1} of {max_restarts}: {count(len(left), 'run')}")
    return [states[run.name] for run in runs]


def _is_restarted(workdir: Workdir, run: PlannedRun, trunk: Trunk | None) -> bool:
    """By the exit code of its last start, or of its trunk's where that came later."""
    attempts = workdir.run_dir(run.name).attempts()
    if trunk is not None:
        attempts = sorted([*attempts, *workdir.trunk_dir(trunk.name).attempts()], key=lambda a: a.began or 0.0)
    code = attempts[-1].exit_code if attempts else None
    return code is None or restarts.is_restarted_after(code)
