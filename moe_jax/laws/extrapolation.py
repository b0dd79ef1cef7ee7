"""A law's own error beyond the runs it was fitted to, as a function of how far beyond a point lies.

A fit takes up the value and the slope of what its form lacks. A straight line through a quadratic over a span s misses
it by d · (d + s) at a distance d beyond its end, one that touches it at the end by d². The error here grows as the mean
of the two, d · (d + s / 2), times a curvature that `rolling_origin` measures: fits of the cheaper rows predict the
dearer ones. experiments/benchmarks/drift.py shows what the bands cover."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

import numpy as np
from scipy import special


@dataclass(frozen=True)
class Extrapolation:
    """How a law has erred on runs dearer than those it was fitted to.

    curvature: nats over `growth`, the root mean square over the origins, with the noise of runs
    and the uncertainty of the coefficients taken off; 0 where these explain all errors."""

    curvature: float
    origins: int  # fits of the cheaper rows, each of which predicted the dearer ones
    predicted: int  # rows that these fits predicted, together
    farthest: float  # largest distance at which they did
    span: float  # ln(cost of the dearest row fitted / cost of the cheapest)
    reach: Mapping[str, float]  # measure of cost (a column, or "N * D") -> the largest of the rows fitted

    def half_width(self, distance: np.ndarray, level: float) -> np.ndarray:
        """Half the width, nats, of the central `level` of the law's errors at a distance; 0 at distance 0.

        Student's t with one degree of freedom less than there are origins: few origins tell little about the scale."""
        freedom = max(self.origins - 1, 1)
        return self.curvature * special.stdtrit(freedom, (1 + level) / 2) * growth(distance, self.span)


def growth(distance: np.ndarray, span: float) -> np.ndarray:
    """How a law's error grows with the distance beyond its data, which span so many e-folds of cost."""
    return distance * (distance + span / 2)


def measures(table: Mapping, axes: Mapping[str, np.ndarray], cost: str | None) -> dict[str, np.ndarray]:
    """The measures of a row's cost that a table offers, the best first: train_flops, the form's own FLOP formula, and
    the product of the axes C, or N and D.

    axes: by symbol; a column that is not of positive numbers is no measure."""
    found = {}
    for column in ("train_flops", cost):
        if column is None or column not in table:
            continue
        try:
            values = np.asarray(table[column], np.float64)
        except (TypeError, ValueError):
            continue
        if np.all(np.isfinite(values) & (values > 0)):
            found[column] = values
    symbols = ["C"] if "C" in axes else [s for s in "ND" if s in axes]
    if symbols:
        found[" * ".join(symbols)] = np.prod(np.broadcast_arrays(*(axes[s] for s in symbols)), axis=0)
    return found


def distance(
    costs: Mapping[str, np.ndarray],
    reach: Mapping[str, float],
    axes: Mapping[str, np.ndarray],
    ranges: Mapping[str, tuple[float, float]],
    shares: Iterable[str] = (),
) -> np.ndarray:
    """How far points lie beyond the rows fitted, in e-folds: the largest of ln(cost / dearest row fitted) and of each
    axis's ln(value / end of its range); 0 within.

    costs, axes: by measure and by symbol, which broadcast; the first measure in `reach` counts. ranges: symbol ->
    (low, high) of the rows fitted. Of `shares` ln(1 − value) counts."""
    parts = [np.zeros(np.broadcast_shapes(*(np.shape(v) for v in axes.values())))]
    if known := [m for m in costs if m in reach]:
        parts.append(np.log(costs[known[0]] / reach[known[0]]))
    for symbol, (low, high) in ranges.items():
        ends = np.array([axes[symbol].min(), axes[symbol].max(), low, high])
        if symbol in shares:
            value, low, high = -np.log1p(-axes[symbol]), -np.log1p(-low), -np.log1p(-high)
        elif (ends > 0).all():
            value, low, high = np.log(axes[symbol]), np.log(low), np.log(high)
        else:
            continue
        parts += [value - high, low - value]
    beyond = np.max(np.broadcast_arrays(*parts), axis=0)
    return np.where(beyond > 1e-9, beyond, 0.0)  # a table's last digit is no distance
