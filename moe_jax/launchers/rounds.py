"""Runs on this machine that are started again where `restarts` says that it helps, as the clusters do it."""

from collections.abc import Sequence

from moe_jax.jobs import trunk_of
from moe_jax.launchers import restarts
from moe_jax.launchers.local import LocalLauncher
from moe_jax.progress import Display
from moe_jax.tables import count
from moe_jax.workdir import PlannedRun, RunState, Workdir


def train(
    workdir: Workdir, runs: Sequence[PlannedRun], jobs: int, max_restarts: int, display: Display
) -> list[RunState]:
    """Trains `runs`, `jobs` at a time, each started at most 1 + `max_restarts` times. Gives their states in the end.

    Raises Stopped as LocalLauncher does."""
    states: dict[str, RunState] = {}
    left = list(runs)
    for start in range(1 + max_restarts):
        states |= {state.name: state for state in LocalLauncher(workdir, left, jobs, display).go()}
        left = [run for run in left if states[run.name].result is None and _again(workdir, run)]
        if not left:
            break
        if start < max_restarts:
            display.say(f"{count(len(left), 'run')} started again, for the {start + 1}. time of at most {max_restarts}")
    return [states[run.name] for run in runs]


def _again(workdir: Workdir, run: PlannedRun) -> bool:
    """By how the run ended, or its trunk where it never began."""
    attempts = workdir.run_dir(run.name).attempts()
    if not attempts and (trunk := trunk_of(workdir.existing_manifest().runs, run.name)):
        attempts = workdir.trunk_dir(trunk.name).attempts()
    code = attempts[-1].get("exit_code") if attempts else None
    return not isinstance(code, int) or restarts.helps(code)
