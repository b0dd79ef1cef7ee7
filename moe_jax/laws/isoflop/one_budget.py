"""The size of lowest loss among the runs of one budget, by four methods. All take x = ln N and losses, each (runs,).

parabola  least squares through all runs (Hoffmann et al. 2022, approach 2)
window    the same through the runs near the minimum alone, found by iteration
cubic     least squares with a third power: a curve that rises faster on one side
akima     Akima's interpolation through the mean loss of each size (Porian et al. 2024)

A maximum, or the end of the data, is no minimum."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from scipy.interpolate import Akima1DInterpolator

WINDOW = 4.0  # the window's runs: N within this factor of the minimum
_IN_WINDOW = 5  # sizes at least, where there are so many
_ROUNDS = 20


@dataclass(frozen=True)
class Curve:
    """A curve through the runs of a budget, and its minimum.

    at: ln N of the minimum, NaN where there is none inside the runs; why says so. loss: nats there. ends: ln N between
    which the curve holds."""

    at: float
    loss: float
    ends: tuple[float, float]
    evaluate: Callable[[np.ndarray], np.ndarray]
    why: str = ""

    @property
    def usable(self) -> bool:
        """Whether the minimum lies inside the runs."""
        return bool(np.isfinite(self.at))


def parabola(x: np.ndarray, y: np.ndarray) -> Curve:
    """A parabola through all runs; at least three sizes."""
    return _polynomial(x, y, 2)


def cubic(x: np.ndarray, y: np.ndarray) -> Curve:
    """A polynomial of degree three through all runs; at least four sizes."""
    return _polynomial(x, y, 3)


def window(x: np.ndarray, y: np.ndarray, factor: float = WINDOW) -> Curve:
    """A parabola through the runs whose N is within `factor` of its own minimum; at least three sizes.

    The window starts at the lowest run and moves to the parabola's minimum until it stays. It takes the five nearest
    sizes where it would hold fewer."""
    sizes = np.unique(x)
    centre, seen = float(x[np.argmin(y)]), []
    curve = None
    for _ in range(_ROUNDS):
        reach = max(np.log(factor), np.sort(np.abs(sizes - centre))[min(_IN_WINDOW, len(sizes)) - 1])
        inside = np.abs(x - centre) <= reach * (1 + 1e-9)
        if any((inside == before).all() for before in seen):
            break
        seen.append(inside)
        curve = _polynomial(x[inside], y[inside], 2)
        if not curve.usable:
            break
        centre = curve.at
    return curve


def akima(x: np.ndarray, y: np.ndarray) -> Curve:
    """Akima's interpolation; at least four sizes. It follows the noise of the runs, where the other methods smooth."""
    sizes, which = np.unique(x, return_inverse=True)
    means = np.bincount(which, y) / np.bincount(which)
    through = Akima1DInterpolator(sizes, means)
    turns = through.derivative().roots(extrapolate=False)
    turns = turns[np.isfinite(turns) & (turns > sizes[0]) & (turns < sizes[-1])]
    at = turns[np.argmin(through(turns))] if len(turns) else np.nan
    lowest = float(through(at)) if len(turns) else np.inf
    ends = (float(sizes[0]), float(sizes[-1]))
    if lowest > means[[0, -1]].min():
        return Curve(np.nan, np.nan, ends, through, "the lowest size is an end of the runs")
    return Curve(float(at), lowest, ends, through)


METHODS: dict[str, Callable[[np.ndarray, np.ndarray], Curve]] = {
    "parabola": parabola, "window": window, "cubic": cubic, "akima": akima,
}  # fmt: skip
SIZES = {"parabola": 3, "window": 3, "cubic": 4, "akima": 4}  # of runs at least


def resampled(method: str, x: np.ndarray, y: np.ndarray, counts: np.ndarray) -> np.ndarray:
    """ln N* (samples,) of samples that draw each run counts (samples, runs) times; NaN where one has too few sizes,
    or no minimum."""
    enough = np.array([len(np.unique(x[c > 0])) >= SIZES[method] for c in counts], bool)
    found = np.full(len(counts), np.nan)
    if degree := {"parabola": 2, "cubic": 3}.get(method):
        found[enough] = _turns(x, y, counts[enough], degree)
        return found
    for i in np.flatnonzero(enough):
        found[i] = METHODS[method](np.repeat(x, counts[i]), np.repeat(y, counts[i])).at
    return found


def _turns(x: np.ndarray, y: np.ndarray, counts: np.ndarray, degree: int) -> np.ndarray:
    """The upward turns (samples,) of least squares with weights (samples, runs), all samples at once."""
    middle, half = (x.max() + x.min()) / 2, np.ptp(x) / 2
    V = np.vander((x - middle) / half, degree + 1)
    left = np.einsum("sr,ri,rj->sij", counts, V, V)
    right = np.einsum("sr,ri,r->si", counts, V, y - y.mean())
    weights = np.linalg.solve(left, right[..., None])[..., 0]
    with np.errstate(divide="ignore", invalid="ignore"):
        if degree == 2:
            a, b, _ = weights.T
            at = np.where(a > 0, -b / (2 * a), np.nan)
        else:
            a, b, c, _ = weights.T
            root = np.sqrt(b**2 - 3 * a * c)
            # The turn with an upward second derivative, in the form that holds for a -> 0 too where b > 0.
            at = np.where(b > 0, -c / (b + root), (root - b) / (3 * a))
    return middle + half * at


def _polynomial(x: np.ndarray, y: np.ndarray, degree: int) -> Curve:
    """Least squares; its minimum is the turn that opens upward."""
    middle, ends = x.mean(), (float(x.min()), float(x.max()))
    weights = np.polyfit(x - middle, y, degree)

    def evaluate(at):
        return np.polyval(weights, np.asarray(at) - middle)

    turns = np.roots(np.polyder(weights)) if np.any(weights[:-1]) else np.array([])
    turns = turns[np.isreal(turns)].real
    upward = turns[np.polyval(np.polyder(weights, 2), turns) > 0] + middle
    if not len(upward):
        return Curve(np.nan, np.nan, ends, evaluate, "opens downward")
    at = float(upward[0])
    if not ends[0] < at < ends[1]:
        return Curve(np.nan, np.nan, ends, evaluate, "its minimum is not inside the runs")
    return Curve(at, float(evaluate(at)), ends, evaluate)
