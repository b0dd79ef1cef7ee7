"""The exit codes after which a run is started again: one rule for xpk, queued resources and this machine."""

from moe_jax import errors

# A crash may be the machine's fault (1 is also Python's traceback). Bad input and a diverged loss would fail again.
CODES = (errors.FAILED, errors.STOPPED)
# xpk always restarts on these: 42, and the codes by which a shell reports a signal.
_ALWAYS = {42, *range(127, 256)}
DEFAULT_LIMIT = 20


def is_restarted_after(code: int) -> bool:
    """Whether a run that ended with `code` is started again; Python's negative codes are signals."""
    return code < 0 or code in CODES or code in _ALWAYS
