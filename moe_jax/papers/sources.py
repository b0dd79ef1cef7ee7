"""Where a reproduction's numbers come from: what was printed, third-party losses where they are, a sweep of ours."""

import dataclasses
import functools
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pandas as pd
from etils import epath

from moe_jax import files
from moe_jax.errors import UserError
from moe_jax.laws import rows

CHECKOUT = Path(__file__).parents[2]


@dataclasses.dataclass(frozen=True)
class Sources:
    """reference: the folder of third-party data, whether it is there or not. ours: the done rows of a results.csv, None
    without a sweep; name: what to call it."""

    paper: str
    reference: Path
    ours: pd.DataFrame | None = None
    name: str = "our runs"

    @functools.cached_property
    def printed(self) -> dict[str, Any]:
        """experiments/PAPER/published.json. Raises UserError where the checkout's experiments are not there."""
        path = epath.Path(CHECKOUT / "experiments" / self.paper / "published.json")
        if not path.exists():
            raise UserError(f"there is no {path}: reproduce needs a checkout of the repository, not the package alone")
        return files.read_json(path)

    def third_party(self, file: str) -> pd.DataFrame | None:
        """A table of the reference folder, None where it is absent. Raises UserError where it is no CSV."""
        path = self.reference / file
        if not path.is_file():
            return None
        return rows.read(path)[0]

    @property
    def absent(self) -> str | None:
        """A sentence where the reference folder is not there."""
        if self.reference.is_dir():
            return None
        return (
            f"Third-party losses are not at {self.reference} (MOE_JAX_REFERENCE says where they are): their columns are"
            " empty and their figures left out."
        )


def reference_folder() -> Path:
    """MOE_JAX_REFERENCE, or ../shared/reference beside the checkout."""
    return Path(os.environ.get("MOE_JAX_REFERENCE") or CHECKOUT.parent / "shared" / "reference")


def finished(workdir: str, needed: Sequence[str]) -> pd.DataFrame:
    """The done rows of W/results.csv. Raises UserError where there are none, or where a needed column is missing."""
    path = epath.Path(workdir) / "results.csv"
    table, _ = rows.read(path)
    if missing := [c for c in ("status", "eval_loss", *needed) if c not in table.columns]:
        raise UserError(f"{path} has no column {missing[0]!r}; `moe-jax collect --workdir={workdir}` makes it anew")
    done = table[table["status"] == "done"].reset_index(drop=True)
    if done.empty:
        raise UserError(f"no run of {path} is done: there is nothing to set beside the paper")
    return done
