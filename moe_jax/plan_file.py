"""plan.json: written whole, and never over something else in silence."""

import itertools
import json
from collections.abc import Callable
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax.errors import UserError

NAME = "plan.json"


def write(path: epath.Path, plan: dict[str, Any], say: Callable[[str], None]) -> None:
    """Writes the plan. Another plan that stands there is moved aside; UserError where the file is no plan."""
    try:
        old = files.read_json(path)
    except FileNotFoundError:
        old = None
    except files.DamagedFile as e:
        raise _not_ours(path, "no JSON object") from e
    if old is not None:
        if not isinstance(old.get("runs"), list) or not isinstance(old.get("totals"), dict):
            raise _not_ours(path, "another file")
        if old == json.loads(json.dumps(plan)):
            say(f"plan: {path} (as it was)")
            return
        numbered = (path.with_name(f"{path.stem}.{i}{path.suffix}") for i in itertools.count(1))
        aside = next(name for name in numbered if not name.exists())
        path.rename(aside)
        say(f"the plan that was there is now {aside}")
    path.parent.mkdir(parents=True, exist_ok=True)
    files.write_json(path, plan)
    say(f"plan: {path}")


def _not_ours(path: epath.Path, what: str) -> UserError:
    return UserError(f"{path}: is {what}, which a plan would overwrite; name another with --out, or move it away")
