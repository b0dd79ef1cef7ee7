"""Iso-FLOP fits of any table of losses, parabolas or surfaces at fixed budgets, and the file that keeps them.

    found = laws.isoflop.fit("results.csv", "isoflop_surface")
    found.surfaces[1e20].best()

These fits have no form; their columns are selected and checked like those of a law with a form."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import pandas as pd
from etils import epath

from moe_jax import errors, files
from moe_jax.laws import rows
from moe_jax.laws.bootstrap import Resampling
from moe_jax.laws.forms import Axes
from moe_jax.laws.isoflop import budgets as grouping
from moe_jax.laws.isoflop import parabolas, surfaces
from moe_jax.laws.isoflop.parabolas import Parabolas
from moe_jax.laws.isoflop.surfaces import Surface
from moe_jax.text import count

KINDS = {
    axes.name: axes
    for axes in (
        Axes(name="isoflop_parabolas", columns={"N": "n_total", "D": "tokens", "C": "train_flops"}),
        Axes(
            name="isoflop_surface",
            columns={"N": "n_total", "S": "sparsity", "C": "flops_abnar2025"},
            shares=frozenset({"S"}),
        ),
    )
}

_PLAIN = ("level", "columns", "loss", "n_fit", "data_sha256", "tolerance")


@dataclass(frozen=True)
class IsoFlop:
    """Parabolas (kind isoflop_parabolas) or surfaces by budget (isoflop_surface); the rest as in FitData and Law."""

    kind: str
    parabolas: Parabolas | None = None
    surfaces: Mapping[float, Surface] = field(default_factory=dict)
    level: float = 0.8
    columns: Mapping[str, str] = field(default_factory=dict)
    loss: str = "eval_loss"
    n_fit: int = 0
    data_sha256: str = ""
    notes: tuple[str, ...] = ()
    tolerance: float = grouping.TOLERANCE
    budgets: tuple[float, ...] = ()
    runs: rows.Rows | None = None  # the rows fitted, for figures; the file does not hold them

    def of_budget(self, flops: float) -> np.ndarray:
        """Indices of the runs of a budget."""
        return grouping.group(self.runs.columns["C"], self.budgets, self.tolerance)[flops]

    def surface(self, flops: float) -> tuple[float, Surface]:
        """The budget nearest to `flops` and its surface. Raises UserError where it is not within `tolerance`."""
        nearest = min(self.surfaces, key=lambda C: abs(math.log(C / flops)))
        if abs(nearest / flops - 1) > self.tolerance:
            known = ", ".join(f"{C:.3g}" for C in self.surfaces)
            raise errors.UserError(f"a surface holds at its own budget: {known} FLOPs, not {flops:.3g}")
        return nearest, self.surfaces[nearest]

    def save(self, path) -> None:
        """Writes the file atomically."""
        path = epath.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        stored = {"law": self.kind}
        stored |= {k: getattr(self, k) for k in (*_PLAIN, "notes", "budgets")}
        if self.parabolas is not None:
            stored["parabolas"] = asdict(self.parabolas) | {"table": self.parabolas.table.to_dict("records")}
        stored["surfaces"] = [{"flops": C} | asdict(surface) for C, surface in self.surfaces.items()]
        files.write_sealed(path, _plain(stored))


def fit(
    table,
    kind: str,
    *,
    loss: str = "eval_loss",
    columns: Mapping[str, str] | None = None,
    where: str = "",
    best_of: str = "",
    budgets: Sequence[float] | None = None,
    tolerance: float = grouping.TOLERANCE,
    resampling: Resampling | None = None,
) -> IsoFlop:
    """Parabolas or surfaces of the runs of each budget.

    Arguments as for laws.fit; budgets (FLOPs) and tolerance decide which runs share a budget (see budgets.group).
    Raises UserError for data that cannot determine them."""
    if kind not in KINDS:
        raise errors.UserError(f"there is no iso-FLOP fit {kind!r}; there are {', '.join(KINDS)}")
    frame, digest = rows.load(table)
    used = rows.select(frame, KINDS[kind], loss, columns, where, best_of)
    resampling, axes = resampling or Resampling(), used.columns
    groups = grouping.group(axes["C"], budgets, tolerance)
    found = None
    if kind == "isoflop_parabolas":
        found = parabolas.fit(
            axes["N"], axes["D"], axes["C"], used.losses, budgets=[*groups], tolerance=tolerance, resampling=resampling
        )
        left_out, fitted, why = found.left_out, {}, "with three sizes"
    else:
        few = min(resampling.samples, 100)
        fitted = {
            C: surfaces.fit(axes["N"][g], axes["S"][g], used.losses[g], samples=few, seed=resampling.seed)
            for C, g in groups.items()
        }
        left_out, why = len(used) - sum(len(g) for g in groups.values()), ""
    notes = list(used.notes)
    if left_out:
        notes.append(
            f"{count(left_out, 'run')} of {len(used)} left out: not within {tolerance:.0%} of a budget {why}".rstrip()
        )
    return IsoFlop(
        kind=kind,
        parabolas=found,
        surfaces=fitted,
        level=resampling.level,
        columns=dict(used.sources),
        loss=loss,
        n_fit=len(used) - left_out,
        data_sha256=digest,
        notes=tuple(notes),
        tolerance=tolerance,
        budgets=tuple(groups),
        runs=used,
    )


def load(path) -> IsoFlop | None:
    """The fits in a file that `save` wrote; None for a law with a form. Raises UserError for a damaged file."""
    path = epath.Path(path)
    stored = files.read_sealed(path)
    if stored.get("law") not in KINDS:
        return None
    try:
        through, fitted = stored.get("parabolas"), {}
        if through is not None:
            arrays = {k: np.array(through[k], np.float64) for k in ("power_laws", "samples")}
            arrays["samples"] = arrays["samples"].reshape(-1, 2, 2)
            through = Parabolas(**through | arrays | {"table": pd.DataFrame(through["table"])})
        for given in stored["surfaces"]:
            values = {k: tuple(v) if isinstance(v, list) else v for k, v in given.items() if k != "flops"}
            values |= {k: np.array(given[k], np.float64) for k in ("weights", "samples")}
            values["samples"] = values["samples"].reshape(-1, len(values["weights"]))
            fitted[float(given["flops"])] = Surface(**values)
        plain = {k: stored[k] for k in _PLAIN} | {k: tuple(stored[k]) for k in ("notes", "budgets")}
        return IsoFlop(stored["law"], through, fitted, **plain)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise errors.UserError(f"{path} is damaged ({type(e).__name__}: {e}); fit it again") from e


def _plain(value):
    """A value as JSON can hold it: arrays as lists, numbers that are not finite as null."""
    match value:
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case Mapping():
            return {k: _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case float():
            return value if math.isfinite(value) else None
    return value
