"""The sources of a reproduction: the paper's printed numbers, third-party losses, and the runs of a sweep of ours."""

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
from moe_jax.provenance import source_tree

PUBLISHED = Path(__file__).parent / "published"


@dataclasses.dataclass(frozen=True)
class Sources:
    """The numbers that a reproduction of one paper uses."""

    paper: str
    reference: Path | None  # the folder of third-party data, whether it is there or not; None where nobody names one
    ours: pd.DataFrame | None = None  # the done rows of a results.csv; None without a sweep
    name: str = "our runs"  # what to call them

    @functools.cached_property
    def printed(self) -> dict[str, Any]:
        """The paper's printed numbers: published/PAPER.json."""
        return files.read_json(epath.Path(PUBLISHED / f"{self.paper}.json"))

    def third_party(self, file: str) -> pd.DataFrame | None:
        """A table of the reference folder, None where it is absent. Raises UserError where it is no CSV."""
        if self.reference is None or not (self.reference / file).is_file():
            return None
        return rows.read(self.reference / file)[0]

    @property
    def absent(self) -> str | None:
        """The sentence for readers where the reference folder is missing; None where it is there."""
        if self.reference is None:
            where = "MOE_JAX_REFERENCE does not say where third-party losses are"
        elif self.reference.is_dir():
            return None
        else:
            where = f"Third-party losses are not at {self.reference} (set MOE_JAX_REFERENCE to their folder)"
        return f"{where}, so their columns are empty and their figures are left out."


def reference_folder() -> Path | None:
    """MOE_JAX_REFERENCE, or ../shared/reference beside the checkout; None without either."""
    if folder := os.environ.get("MOE_JAX_REFERENCE"):
        return Path(folder)
    tree = source_tree()
    return None if tree is None else tree.parent / "shared" / "reference"


def finished(workdir: str, needed: Sequence[str]) -> pd.DataFrame:
    """The finished runs of W/results.csv. Raises UserError where there are none, or a needed column is missing."""
    path = epath.Path(workdir) / "results.csv"
    table, _ = rows.read(path)
    if missing := [c for c in ("status", "eval_loss", *needed) if c not in table.columns]:
        raise UserError(f"{path} has no column {missing[0]!r}; `moe-jax collect --workdir={workdir}` writes it again")
    done = table[table["status"] == "done"].reset_index(drop=True)
    if done.empty:
        raise UserError(f"no run of {path} is done, so there is nothing to compare with the paper")
    return done
