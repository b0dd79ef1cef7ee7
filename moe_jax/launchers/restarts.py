"""Which ends of a run a launcher starts again: one rule for xpk, queued resources and this machine."""

from moe_jax import errors

# A crash may be the machine's fault (1 is also Python's traceback); bad input and a diverged loss stay what they are.
CODES = (errors.FAILED, errors.STOPPED)
# xpk restarts on these whatever it is told: 42, and what a shell says of a signal.
_ALWAYS = {42, *range(127, 256)}
DEFAULT_LIMIT = 20


def helps(code: int) -> bool:
    """Whether to start again after `code`; Python's negative codes are signals."""
    return code < 0 or code in CODES or code in _ALWAYS
