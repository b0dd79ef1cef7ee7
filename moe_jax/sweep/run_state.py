"""The state of a run, from its files alone: it works on gs://, from any machine, and while the run trains."""

import dataclasses
import enum
from collections.abc import Callable

from moe_jax import errors, files
from moe_jax.sweep.attempt import Attempt
from moe_jax.sweep.heartbeat import Heartbeat
from moe_jax.sweep.manifest import PlannedRun
from moe_jax.sweep.result import Result
from moe_jax.sweep.rundir import RunDir

STALE_SECONDS = 300  # a run without a result that was silent for so long is stale
_PATIENCE_SECONDS = 86_400  # a stopped run is queued for so long; then its job may be out of restarts, so it is stale


class State(enum.StrEnum):
    """The state of a run or a trunk, in the order in which totals are printed."""

    QUEUED = "queued"  # not begun, or stopped and to be started again
    RUNNING = "running"
    STALE = "stale"  # silent for STALE_SECONDS
    FAILED = "failed"
    DIVERGED = "diverged"
    DONE = "done"
    DAMAGED = "damaged"  # its result cannot be read


@dataclasses.dataclass(frozen=True)
class RunState:
    """A run at one moment."""

    name: str
    state: State
    step: int  # updates done
    steps: int  # updates of the whole run
    heartbeat: Heartbeat  # the newest; nothing is known in it if there is none
    result: Result | None
    attempts: int  # starts so far
    sentence: str  # of a run without a result: the last words of its last attempt, or what is wrong


def state_of(
    run: PlannedRun, folder: RunDir, now: float, read_result: Callable[[RunDir], Result | None] = RunDir.result
) -> RunState:
    """The state of a run at the time `now`, in seconds since the epoch. A file that is damaged, or that the system does
    not let us read, raises nothing: the other runs are shown all the same."""
    steps = run.config.steps
    seen = RunState(run.name, State.QUEUED, 0, steps, Heartbeat(), None, 0, "")
    try:
        if (result := read_result(folder)) is not None:
            seen = dataclasses.replace(seen, state=State(result.status), step=result.steps, result=result)
    except (files.DamagedFile, OSError) as e:
        seen = dataclasses.replace(seen, state=State.DAMAGED, sentence=_why_unread(e))
    try:
        heartbeat, starts = folder.heartbeat() or Heartbeat(), folder.attempt_numbers()
    except OSError as e:  # the folder itself
        return seen if seen.result else dataclasses.replace(seen, state=State.DAMAGED, sentence=_why_unread(e))
    seen = dataclasses.replace(seen, heartbeat=heartbeat, attempts=len(starts))
    if seen.state != State.QUEUED:
        return seen
    seen = dataclasses.replace(seen, step=min(heartbeat.step, steps))
    if not starts:
        return seen
    last = folder.attempt(starts[-1])
    return dataclasses.replace(seen, state=_state_of_attempt(last, heartbeat, now), sentence=last.sentence)


def _state_of_attempt(last: Attempt, heartbeat: Heartbeat, now: float) -> State:
    """The state of a run without a result, by its last start."""
    if last.ended is None:
        newest = max(heartbeat.time or 0.0, last.began or 0.0)
        return State.RUNNING if now - newest < STALE_SECONDS else State.STALE
    if last.exit_code != errors.STOPPED:
        return State.FAILED
    return State.QUEUED if now - last.ended < _PATIENCE_SECONDS else State.STALE


def _why_unread(e: Exception) -> str:
    if isinstance(e, OSError) and e.filename is not None:
        return f"{e.filename}: cannot be read ({e.strerror})"
    return str(e)
