"""The design of a table: how far the runs spread along each axis of a law, and which axes move together."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import combinations

import numpy as np

from moe_jax.laws.forms import Axes, Form

SPAN = 3.0  # an axis that spans a smaller factor shows the level and the slope of a power law, not its exponent
TOGETHER = 0.99  # correlation of the logarithms of two axes above which their terms can be exchanged
_ROWS = 200  # that show which coefficients depend on which axes
_MOVED = 1.3  # factor of an axis in that test
_STEP = 1e-4
_DEPENDS = 1e-6


@dataclass(frozen=True)
class Design:
    """span: axis -> largest / smallest value (of 1 − value for a share); levels: axis -> number of different values;
    correlation: "N, D" -> correlation of their logarithms."""

    span: Mapping[str, float] = field(default_factory=dict)
    levels: Mapping[str, int] = field(default_factory=dict)
    correlation: Mapping[str, float] = field(default_factory=dict)

    def to_json(self) -> dict[str, dict[str, float]]:
        """The design, for law.json."""
        return {"span": dict(self.span), "levels": dict(self.levels), "correlation": dict(self.correlation)}

    @property
    def together(self) -> list[tuple[str, str]]:
        """Pairs of axes that move together."""
        return [tuple(pair.split(", ")) for pair, r in self.correlation.items() if abs(r) > TOGETHER]

    def warnings(self) -> tuple[str, ...]:
        """Sentences about what this design cannot tell, whatever the losses are."""
        said = [
            f"{axis} spans a factor of {span:.3g} only: a power of {axis} cannot be told from a constant and a slope;"
            f" runs over a factor of 10 or more can."
            for axis, span in self.span.items()
            if span < SPAN and self.levels[axis] > 1
        ]
        said += [
            f"{axis} has two values only: they give one difference, and a factor and an exponent are two numbers."
            for axis, levels in self.levels.items()
            if levels == 2 and self.span[axis] >= SPAN
        ]
        for a, b in self.together:
            said.append(
                f"{a} and {b} move together (correlation {self.correlation[f'{a}, {b}']:.4f}): their terms can be"
                f" exchanged; vary {b} at fixed {a}."
            )
        return tuple(said)


def of(form: Axes, columns: Mapping[str, np.ndarray]) -> Design:
    """The design of rows; columns by symbol, (rows,)."""
    logs = {}
    for s in form.symbols:
        value = np.asarray(columns[s], np.float64)
        logs[s] = np.log(1 - value if s in form.shares else value)
    span = {s: float(np.exp(np.ptp(x))) for s, x in logs.items()}
    levels = {s: len(np.unique(x)) for s, x in logs.items()}
    varied = [s for s in logs if np.std(logs[s]) > 1e-9]
    return Design(
        span,
        levels,
        {f"{a}, {b}": float(np.corrcoef(logs[a], logs[b])[0, 1]) for a, b in combinations(varied, 2)},
    )


def dependence(form: Form, columns: Mapping[str, np.ndarray], theta: np.ndarray) -> dict[str, frozenset[str]]:
    """The axes of each coefficient's term: those on which the effect of the coefficient on the loss depends.

    theta (coefficients,): where the effects are looked at; columns by symbol, (rows,)."""
    some = np.linspace(0, len(next(iter(columns.values()))) - 1, _ROWS).astype(int)
    at = {s: np.asarray(columns[s], np.float64)[np.unique(some)] for s in form.symbols}

    def effects(axes):
        steps = _STEP * np.eye(len(theta))
        up, down = (form.outer((theta + sign * steps)[:, None, :]) for sign in (1, -1))
        return form.loss(axes, up) - form.loss(axes, down)

    before, found = effects(at), {name: set() for name in form.names}
    for s, value in at.items():
        moved = 1 - (1 - value) / _MOVED if s in form.shares else value * _MOVED
        change = np.abs(effects({**at, s: moved}) - before).max(1)
        for name, size, most in zip(form.names, change, np.abs(before).max(1), strict=True):
            if size > _DEPENDS * most:
                found[name].add(s)
    return {name: frozenset(axes) for name, axes in found.items()}
