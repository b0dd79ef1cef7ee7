"""What `doctor` looks at, one thing a function; each gives a Finding, and nothing here raises for what it finds."""

import dataclasses
import subprocess
from collections.abc import Sequence

STATES = ("ok", "warn", "fail")
_SECONDS = 30.0  # that a client may take to answer a question about this machine


@dataclasses.dataclass(frozen=True)
class Finding:
    """`state`: ok; warn, something will be missed; fail, the work that was asked about will not begin or not end."""

    state: str
    what: str
    says: str
    do: str = ""  # the remedy


def answer(*command: str) -> str | None:
    """All that a program prints; None where it is not there, fails, or does not answer in time."""
    try:
        done = subprocess.run(
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=_SECONDS
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return (done.stdout + done.stderr).strip() if done.returncode == 0 else None


def worst(findings: Sequence[Finding]) -> str:
    return max((f.state for f in findings), key=STATES.index)
