"""Iso-FLOP fits of any table of losses: minima or surfaces at fixed budgets.

    found = laws.isoflop.fit("results.csv", "surface")
    found.surfaces[1e20].best()

These fits have no form; their columns are selected and checked like those of a law with a form."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from moe_jax import errors
from moe_jax.laws import limits, rows
from moe_jax.laws.bootstrap import Resampling
from moe_jax.laws.forms import Axes
from moe_jax.laws.isoflop import budgets as grouping
from moe_jax.laws.isoflop import envelope, minima, one_budget, surfaces
from moe_jax.laws.isoflop.minima import Minima
from moe_jax.laws.isoflop.surfaces import Surface
from moe_jax.text import count

_MINIMA = {"N": "n_total", "D": "tokens", "C": "train_flops"}
METHODS = {
    **{name: Axes(name=name, columns=_MINIMA) for name in (*one_budget.METHODS, "envelope")},
    "surface": Axes(
        name="surface",
        columns={"N": "n_total", "S": "sparsity", "C": "flops_abnar2025"},
        shares=frozenset({"S"}),
    ),
}
_SAMPLES = 100  # of a surface at most, as in the paper


@dataclass(frozen=True)
class IsoFlop:
    """Minima by budget, or surfaces by budget (method surface); the rest as in FitData and Law."""

    method: str
    minima: Minima | None = None
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
    curves: tuple[envelope.TrainingCurve, ...] = ()  # of an envelope, for figures; the file does not hold them

    @property
    def kind(self) -> str:
        """What the file calls these fits."""
        return "isoflop_surface" if self.minima is None else "isoflop_minima"

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


def fit(
    table,
    method: str = "parabola",
    *,
    loss: str = "eval_loss",
    columns: Mapping[str, str] | None = None,
    where: str = "",
    best_of: str = "",
    budgets: Sequence[float] | None = None,
    tolerance: float = grouping.TOLERANCE,
    resampling: Resampling | None = None,
    logged: Mapping[str, tuple[np.ndarray, np.ndarray]] | None = None,
) -> IsoFlop:
    """Minima or surfaces of the runs of each budget, by one of METHODS.

    Arguments as for laws.fit; budgets (FLOPs) and tolerance decide which runs share a budget (see budgets.group).
    logged: for an envelope, run's name -> (tokens, losses) of its training curve; without it the envelope is that of
    the final losses. Raises UserError for data that cannot determine them, and for more rows or samples than limits.py
    allows."""
    if method not in METHODS:
        raise errors.UserError(f"there is no iso-FLOP method {method!r}; there are {', '.join(METHODS)}")
    frame, digest = rows.load(table)
    used = rows.select(frame, METHODS[method], loss, columns, where, best_of)
    resampling = resampling or Resampling()
    limits.refuse_rows(len(used))
    limits.refuse_samples(len(used), resampling.samples)
    found = {"surface": _surfaces, "envelope": _envelope}.get(method, _minima)(
        method, used, budgets, tolerance, resampling, logged
    )
    left_out = found.pop("left_out")
    notes = [*used.notes, *found.pop("notes")]
    if left_out:
        enough = "" if method == "surface" else f" with {one_budget.SIZES[method]} sizes"
        notes.append(
            f"{count(left_out, 'run')} of {len(used)} left out: not within {tolerance:.0%} of a budget{enough}"
        )
    return IsoFlop(
        method=method,
        level=resampling.level,
        columns=dict(used.sources),
        loss=loss,
        n_fit=len(used) - left_out,
        data_sha256=digest,
        notes=tuple(notes),
        tolerance=tolerance,
        runs=used,
        **found,
    )


def _minima(method, used, budgets, tolerance, resampling, logged) -> dict:
    axes = used.columns
    groups = grouping.group(axes["C"], budgets, tolerance)
    found = minima.fit(
        axes["N"], axes["D"], axes["C"], used.losses,
        method=method, budgets=[*groups], tolerance=tolerance, resampling=resampling,
    )  # fmt: skip
    return {"minima": found, "budgets": tuple(groups), "left_out": found.left_out, "notes": ()}


def _envelope(method, used, budgets, tolerance, resampling, logged) -> dict:
    """Approach 1 knows no budgets of the grid: every compute up to the dearest run's is one."""
    axes = used.columns
    if budgets is not None:
        raise errors.UserError(
            "an envelope takes every budget up to its dearest run's: --budgets (budgets) is not for it"
        )
    if logged is None:
        found = envelope.of_final_losses(axes["N"], axes["D"], axes["C"], used.losses, resampling)
        return {
            "minima": found,
            "left_out": 0,
            "notes": (_FINAL,),
        }
    curves = envelope.curves_of(logged, used.names, axes["N"], axes["D"], axes["C"])
    without, notes = len(used) - len(curves), [_SCHEDULE]
    if without:
        notes.append(f"{count(without, 'run')} of {len(used)} without a training curve")
    found = envelope.of_curves(curves, resampling)
    return {"minima": found, "left_out": 0, "notes": notes, "curves": tuple(curves)}


def _surfaces(method, used, budgets, tolerance, resampling, logged) -> dict:
    axes = used.columns
    groups = grouping.group(axes["C"], budgets, tolerance)
    samples = min(resampling.samples, _SAMPLES)
    fitted = {
        C: surfaces.fit(axes["N"][g], axes["S"][g], used.losses[g], samples=samples, seed=resampling.seed)
        for C, g in groups.items()
    }
    left_out = len(used) - sum(len(g) for g in groups.values())
    return {"surfaces": fitted, "budgets": tuple(groups), "left_out": left_out, "notes": ()}


_FINAL = "the envelope is that of final losses, not of training curves"
_SCHEDULE = (
    "the envelope is that of training losses: before the end of a decaying schedule they lie above those of a run"
    " planned to that length, which moves N* and D*"
)
