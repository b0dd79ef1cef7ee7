"""The checks of `doctor`: one function a check, which returns a Finding and does not raise."""

import dataclasses
import subprocess
from collections.abc import Sequence

STATES = ("ok", "warn", "fail")
_SECONDS = 30.0  # the longest wait for a client's answer


@dataclasses.dataclass(frozen=True)
class Finding:
    """The outcome of a check. `state` is ok; warn: something will be missing; fail: the work would not start, or would
    not end."""

    state: str
    what: str
    says: str
    do: str = ""  # the remedy


def answer(*command: str) -> str | None:
    """Everything that a command prints; None where it is not installed, fails, or takes too long."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else None


def worst(findings: Sequence[Finding]) -> str:
    """The worst state among the findings."""
    return max((f.state for f in findings), key=STATES.index)
