"""How a run stands, from its files alone: on gs:// too, from any machine, while it goes on."""

import dataclasses
from typing import Any

from moe_jax import files
from moe_jax.manifest import PlannedRun
from moe_jax.rundir import RunDir
from moe_jax.tables import number

STALE_SECONDS = 300  # a run without a sign of life for so long, and without a result, is stale
_PATIENCE_SECONDS = 86_400  # so long capacity may take to come back; a job may also be out of restarts
STATES = ("queued", "running", "stale", "failed", "diverged", "done", "damaged")


@dataclasses.dataclass(frozen=True)
class RunState:
    """What the files say of a run now."""

    name: str
    state: str  # one of STATES
    step: int
    steps: int
    beat: dict[str, Any]  # the newest heartbeat, {} if none
    result: dict[str, Any] | None
    attempts: int
    sentence: str  # the last attempt's last words, or what is wrong


def state_of(run: PlannedRun, folder: RunDir, now: float) -> RunState:
    """Done, running, stale, …: from files alone, so it works on gs:// and while the run goes on."""
    beat = folder.heartbeat() or {}
    attempts = folder.attempts()
    last = attempts[-1] if attempts else {}
    steps = run.config.steps
    step = min(max(0, int(number(beat.get("step")) or 0)), steps)  # one mangled file must not hide all other runs

    def state(
        word: str, step: int = step, result: dict[str, Any] | None = None, sentence: str = str(last.get("sentence", ""))
    ) -> RunState:
        return RunState(run.name, word, step, steps, beat, result, len(attempts), sentence)

    try:
        result = folder.result()
    except files.DamagedFile as e:
        return state("damaged", sentence=str(e))
    if result is not None:
        return state(result["status"], step=int(result["steps"]), result=result)
    if not attempts:
        return state("queued")
    if "ended" in last:
        if last.get("exit_code") != 75:
            return state("failed")
        waits = now - (number(last["ended"]) or 0) < _PATIENCE_SECONDS
        return state("queued" if waits else "stale")
    newest = max(number(beat.get("time")) or 0, number(last.get("began")) or 0)
    return state("running" if now - newest < STALE_SECONDS else "stale")
