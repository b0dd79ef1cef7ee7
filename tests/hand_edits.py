"""Sealed files that were changed by hand and sealed again, so that their reader has to judge the values."""

import json
from pathlib import Path
from typing import Any

from moe_jax import files


def sealed_text(fields: dict[str, Any]) -> str:
    """The content of a file with these fields and a seal that is right for them, NaN and the like included."""
    return json.dumps(files.sealed({name: value for name, value in fields.items() if name != "fields_sha256"}))


def change(path: Path, **fields: Any) -> None:
    """Replaces some fields of a sealed file and renews its seal."""
    path.write_text(sealed_text(json.loads(path.read_text()) | fields))
