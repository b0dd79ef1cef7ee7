"""What result.json holds, and what it must hold to be believed."""

from typing import Any

from moe_jax.tables import number

TEXTS = frozenset({"name", "status", "trunk", "config_hash", "git_commit", "device"})
# Numbers unless in TEXTS; None where the run has no such value.
MEASURED = (
    "eval_loss", "bits_per_byte", "train_loss", "dropped_fraction", "trunk", "own_tokens", "attempts", "config_hash",
    "git_commit", "device", "wall_seconds", "mfu",
)  # fmt: skip
# What a finished run must have measured for its result to mean anything.
_REQUIRED = {
    "done": ("steps", "tokens", "eval_loss", "bits_per_byte", "dropped_fraction", "wall_seconds"),
    "diverged": ("steps", "tokens", "diverged_step"),
}


def fault(result: dict[str, Any], name: str) -> str | None:
    """Why this is not the result of the run `name` as training.py writes it; None where nothing speaks against it."""
    if result.get("name") != name:
        return f"its name is {result.get('name')!r}"
    status = result.get("status")
    if not isinstance(status, str) or status not in _REQUIRED:
        return f"its status is {status!r}"
    if not isinstance(result.get("config_hash"), str):
        return f"its config_hash is {result.get('config_hash')!r}"
    for field in _REQUIRED[status]:
        value = number(result.get(field))
        if value is None or value < 0:
            return f"{field} is {result.get(field)!r}"
    for field in MEASURED:
        value = result.get(field)
        if value is not None and (not isinstance(value, str) if field in TEXTS else number(value) is None):
            return f"{field} is {value!r}"
        if isinstance(value, (int, float)) and value < 0:
            return f"{field} is {value!r}"
    if (result.get("dropped_fraction") or 0) > 1:
        return f"dropped_fraction is {result['dropped_fraction']!r}"
    return None
