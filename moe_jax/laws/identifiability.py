"""Identifiability: coefficients that a fit returns but the rows do not determine, and sentences that say why."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from moe_jax.laws import residuals
from moe_jax.laws.alternatives import RATIO, Accepted, explore, unit
from moe_jax.laws.bootstrap import Resampling, resample
from moe_jax.laws.designs import Design, dependence
from moe_jax.laws.forms import Form
from moe_jax.laws.intervals import central
from moe_jax.laws.law import Identifiability
from moe_jax.laws.levenberg_marquardt import descend
from moe_jax.laws.objective import Problem

_NEAR_BOUND = 1e-3
_INSEPARABLE = 0.95  # correlation of two estimates from which the rows determine a combination, not the two
_TAINTED = 0.99  # correlation with the estimate of a coefficient that is not identified from which another is not
_PARTNERS = 3  # named at most


@dataclass(frozen=True)
class Evidence:
    """What is known about an optimum theta (coefficients,) when its identifiability is judged.

    free: (coefficients,) True where the fit could move it; intervals: by name; accepted: other laws that the rows
    accept, None where they were not looked for; design: of the rows."""

    problem: Problem
    theta: np.ndarray
    free: np.ndarray
    intervals: Mapping[str, tuple[float, float]]
    accepted: Accepted | None
    design: Design
    clusters: np.ndarray | None = None

    def whole_interval(self, name: str) -> tuple[float, float]:
        """The interval of a coefficient that is not identified: it reaches over all that the rows accept."""
        low, high = self.intervals[name]
        if self.accepted is None:
            return low, high
        least, most = self.accepted.reach(self.problem.form, self.theta, name)
        return min(low, least), max(high, most)


def identify(evidence: Evidence, resampling: Resampling) -> Identifiability:
    """Which coefficients the rows do not determine, and why.

    A fitted coefficient is not identified if its interval, or the laws that the rows accept about as well, span more
    than a factor of RATIO (positive ones), hold zero or are wider than its value (others); if it ended at a bound of
    the search; if its term depends on nothing but axes that move together; or if its estimate goes with that of
    another that is not identified. A fixed one is set free in a fit of its
    own, without penalty: if the same holds there, the data could not have chosen the fixed value."""
    problem, theta, free = evidence.problem, evidence.theta, evidence.free
    form, values = problem.form, problem.form.outer(theta)
    reasons = _reasons(evidence)
    names = list(reasons)
    sentences = [f"{name} is not identified: {why}." for name, why in reasons.items()]
    sentences += _inseparable(evidence, names)
    for i in np.flatnonzero(~free) if resampling.samples else ():
        name = form.names[i]
        if why := _reason_if_freed(evidence, i, resampling):
            names.append(name)
            sentences.append(
                f"{name} was fixed at {values[name]:.4g}, not measured, and these rows could not choose it: {why}."
            )
    if (problem.objective.l1 or problem.objective.l2) and evidence.intervals:
        sentences += _pulled_by_penalty(problem, theta, free, evidence.intervals)
    return Identifiability(tuple(n for n in form.names if n in names), tuple(sentences))


def _reasons(evidence: Evidence) -> dict[str, str]:
    """Why coefficients that were fitted are not identified, by name."""
    form, theta = evidence.problem.form, evidence.theta
    low, high = form.bounds()
    values, found = form.outer(theta), {}
    exchangeable = _exchangeable(evidence)
    for i in np.flatnonzero(evidence.free):
        name = form.names[i]
        if at_bound(theta[i], low[i], high[i]):
            found[name] = f"it ran to the bound of the search ({values[name]:.3g})"
        elif reason_unidentified(form, name, float(values[name]), evidence.intervals.get(name)):
            found[name] = reason_unidentified(form, name, float(values[name]), evidence.whole_interval(name))
        elif why := _reason_accepted(evidence, i) or exchangeable.get(name):
            found[name] = why
    return _tainted(evidence, found) | found


def _tainted(evidence: Evidence, found: Mapping[str, str]) -> dict[str, str]:
    """Coefficients whose estimates go with that of one that is at a wall, or anywhere, with the reason, by name.

    The wall, or chance, holds that coefficient, and with it all that follow it."""
    if evidence.accepted is None:
        return {}
    names, tainted = evidence.problem.form.names, {}
    correlation = np.abs(evidence.accepted.correlation)
    low, high = evidence.problem.form.bounds()
    anywhere = np.sqrt(np.diag(evidence.accepted.covariance)) > unit(evidence.problem, evidence.theta)
    anywhere |= np.minimum(evidence.theta - low, high - evidence.theta) < _NEAR_BOUND
    found = {k: why for k, why in found.items() if anywhere[names.index(k)]}
    for i in np.flatnonzero(evidence.free):
        nearest = max(found, key=lambda k, i=i: correlation[i, names.index(k)], default=None)
        if nearest is None or nearest == names[i] or (r := correlation[i, names.index(nearest)]) < _TAINTED:
            continue
        tainted[names[i]] = f"its estimate follows that of {nearest} (correlation {min(r, 0.9999):.4f}), which is not"
    return tainted


def _reason_accepted(evidence: Evidence, index: int) -> str | None:
    """Why the laws that the rows accept leave a coefficient undetermined: it was moved itself, or follows another."""
    if evidence.accepted is None or not len(evidence.accepted.theta):
        return None
    form, accepted = evidence.problem.form, evidence.accepted
    name = form.names[index]
    coefficient, value = form.coefficients[name], float(form.outer(evidence.theta)[name])
    for held in (index, *np.setdiff1d(accepted.held, [index])):
        seen = coefficient.outer(np.append(accepted.theta[accepted.held == held, index], evidence.theta[index]))
        low, high = float(seen.min()), float(seen.max())
        if not is_wide(coefficient.positive, value, low, high):
            continue
        if held == index:
            return f"values from {low:.3g} to {high:.3g} fit about as well"
        other = form.names[held]
        seen = form.coefficients[other].outer(
            np.append(accepted.theta[accepted.held == held, held], evidence.theta[held])
        )
        return (
            f"{other} may be anything from {seen.min():.3g} to {seen.max():.3g}, and it follows, from {low:.3g} to"
            f" {high:.3g}"
        )
    return None


def _exchangeable(evidence: Evidence) -> dict[str, str]:
    """Coefficients whose terms depend on nothing but axes that move together, with the reason, by name."""
    found: dict[str, str] = {}
    if not evidence.design.together:
        return found
    form = evidence.problem.form
    columns = dict(zip(form.symbols, evidence.problem.columns, strict=True))
    terms = dependence(form, columns, evidence.theta)
    for pair in evidence.design.together:
        r = evidence.design.correlation[", ".join(pair)]
        why = f"{pair[0]} and {pair[1]} move together (correlation {r:.4f}): their terms can be exchanged"
        for name, axes in terms.items():
            if axes and axes <= set(pair):
                found[name] = why
    return found


def _inseparable(evidence: Evidence, names: list[str]) -> list[str]:
    """Sentences about coefficients that are not identified because the rows determine a combination of them."""
    if evidence.accepted is None or len(names) < 2:
        return []
    form = evidence.problem.form
    columns = dict(zip(form.symbols, evidence.problem.columns, strict=True))
    terms, correlation = dependence(form, columns, evidence.theta), np.abs(evidence.accepted.correlation)
    left, said = [n for n in form.names if n in names], []
    while len(left) > 1:
        first = form.names.index(left[0])
        near = [n for n in left[1:] if correlation[first, form.names.index(n)] > _INSEPARABLE][:_PARTNERS]
        if near:
            group = [left[0], *near]
            axes = frozenset.union(*(terms[n] for n in group))
            spans = [f"{s} from {columns[s].min():.3g} to {columns[s].max():.3g}" for s in form.symbols if s in axes]
            where = f" on {' and '.join(spans)}" if spans else ""
            said.append(f"{', '.join(group[:-1])} and {group[-1]} cannot be told apart{where}.")
        left = [n for n in left[1:] if n not in near]
    return said


def is_wide(positive: bool, value: float, low: float, high: float) -> bool:
    """True where a range leaves a coefficient undetermined: a factor of RATIO, zero inside, or wider than its value."""
    if positive:
        return high > RATIO * low
    return low <= 0 <= high or high - low > abs(value)


def reason_unidentified(form: Form, name: str, value: float, interval: tuple[float, float] | None) -> str | None:
    """Why an interval leaves a coefficient undetermined; None where it does not, or where there is no interval."""
    if interval is None:
        return None
    low, high = interval
    positive = form.coefficients[name].positive
    if positive:
        floor, ceiling = form.coefficients[name].bounds
        if low < floor * 1.01:
            return f"anything from {floor if floor > 1e-6 else 0:.3g} to {high:.3g} fits about as well"
        if high > ceiling / 1.01:
            return f"anything above {low:.3g} fits about as well"
    if not is_wide(positive, value, low, high):
        return None
    if positive:
        return f"its interval {low:.3g} to {high:.3g} spans a factor of {high / low:.3g}"
    if low <= 0 <= high:
        return f"its interval {low:.3g} to {high:.3g} holds zero"
    return f"its interval {low:.3g} to {high:.3g} is wider than its value"


def at_bound(theta: float, low: float, high: float) -> bool:
    """True where a coordinate of the optimiser ended at a bound of its search."""
    return min(theta - low, high - theta) < _NEAR_BOUND


def rank(problem: Problem, theta: np.ndarray, free: np.ndarray) -> int:
    """How many independent directions of the free coefficients change the losses of the rows, at theta."""
    _, _, curvature, _ = problem.normal_equations(theta[None], np.ones((1, len(problem.losses))))
    matrix = curvature[0][np.ix_(free, free)]
    scale = 1 / np.sqrt(np.maximum(np.diag(matrix), 1e-300))
    eigenvalues = np.linalg.eigvalsh(matrix * scale[:, None] * scale)
    return int((eigenvalues > 1e-12).sum())


def fit_warnings(starts: int, at_best: int, errors: Mapping, n_fit: int, n_free: int) -> tuple[str, ...]:
    """Warnings about the fit as a whole: few runs, few starts at the best optimum, an error above the noise.

    errors: of the law, nats; n_fit, n_free: rows and coefficients fitted."""
    said = []
    if n_fit < 2 * n_free:
        said.append(
            f"{n_fit} runs for {n_free} coefficients: the fit follows single runs, and the intervals are too narrow."
        )
    if at_best < 3 <= starts:
        said.append(
            f"Only {at_best} of {starts} starts reached the best optimum: a better one may exist; try more --starts."
        )
    if "noise" in errors and errors["rmse_fit"] > 2 * errors["noise"]:
        said.append(
            f"Repeated runs agree to {errors['noise']:.4f} nats and the law misses them by {errors['rmse_fit']:.4f}:"
            " the rest is the law's error, not noise."
        )
    return tuple(said)


def single_run_warnings(form: Form, theta: np.ndarray, free: np.ndarray, others: np.ndarray, names) -> tuple[str, ...]:
    """Warnings about single runs that decide a coefficient: more than half of its jackknife variance comes from one.

    others (rows, coefficients): the optima without each row, whose names are `names`."""
    squares = (others - others.mean(0)) ** 2
    share = np.where(free, squares / np.maximum(squares.sum(0), 1e-300), 0.0)
    said = []
    for i in np.flatnonzero(share.max(0) > 0.5):
        run, k = int(share[:, i].argmax()), form.names[i]
        before, after = form.outer(theta)[k], form.outer(others[run])[k]
        said.append(
            f"One run makes {share[run, i]:.0%} of the uncertainty of {k}: without {names[run]} it is {after:.4g}"
            f" instead of {before:.4g}."
        )
    return tuple(said)


def _reason_if_freed(evidence: Evidence, index: int, resampling: Resampling) -> str | None:
    problem, theta = evidence.problem, evidence.theta
    freed = evidence.free.copy()
    freed[index] = True
    bare = problem.at(l1=0.0, l2=0.0)
    best = descend(bare, theta[None], None, freed).theta[0]
    form, name = problem.form, problem.form.names[index]
    few = replace(resampling, samples=min(resampling.samples, 256))
    low, high = form.bounds()
    if at_bound(best[index], low[index], high[index]):
        return f"left free, without penalty, it runs to the bound of the search ({float(form.outer(best)[name]):.3g})"
    noise = residuals.noise(bare, best, freed, None)
    drawn = resample(bare, best, freed, few, noise=noise, clusters=evidence.clusters)
    if why := reason_unidentified(form, name, float(form.outer(best)[name]), central(drawn, few.level)[name]):
        return f"left free, without penalty, {why}"
    found = replace(evidence, problem=bare, theta=best, free=freed, accepted=explore(bare, best, freed, noise))
    if why := _reason_accepted(found, index):
        return f"left free, without penalty, {why}"
    return None


def _pulled_by_penalty(problem: Problem, theta: np.ndarray, free: np.ndarray, intervals: Mapping) -> list[str]:
    """A warning about coefficients that the penalty decides: those whose value without it lies outside the interval."""
    form, bare = problem.form, problem.at(l1=0.0, l2=0.0)
    best = descend(bare, theta[None], None, free).theta[0]
    without = form.outer(best)
    moved = [k for i, k in enumerate(form.names) if free[i] and not intervals[k][0] <= without[k] <= intervals[k][1]]
    if not moved:
        return []
    columns = dict(zip(form.symbols, problem.columns, strict=True))
    rmse = [np.sqrt(np.mean((form.loss(columns, form.outer(t)) - problem.losses) ** 2)) for t in (theta, best)]
    values = ", ".join(f"{k} {form.outer(theta)[k]:.4g} → {without[k]:.4g}" for k in moved)
    return [
        f"The penalty, not the data, sets {', '.join(moved)}: without it {values},"
        f" and RMSE {rmse[0]:.4f} → {rmse[1]:.4f}."
    ]
