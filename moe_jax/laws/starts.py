"""Starting points of the optimiser: a number of well-spread points, or a paper's grid."""

import itertools
from collections.abc import Mapping

import numpy as np

from moe_jax import errors
from moe_jax.laws.forms import Form
from moe_jax.laws.objective import Problem

DEFAULT = 128
_MOST = 8192  # starts of a grid that are optimised; a larger grid is screened
_DRAWN = 16  # points drawn for each start that is optimised
_BLOCK = 4096


def choose(problem: Problem, asked: int | Mapping[str, list], fix: Mapping[str, float]) -> np.ndarray:
    """The starts that are optimised, (starts, coefficients).

    asked: how many, chosen out of 16 times as many points; or a grid {coefficient: values}, whose points are optimised,
    at most 8,192 of them. fix: coefficients held at a value. Raises UserError for a grid without a coefficient."""
    if isinstance(asked, Mapping):
        return screen(problem, draw(problem.form, asked, fix), _MOST)
    theta, known = draw(problem.form, asked * _DRAWN, fix), len(problem.form.published)
    return np.concatenate([theta[:known], screen(problem, theta[known:], asked)])[:asked]


def draw(form: Form, asked: int | Mapping[str, list], fix: Mapping[str, float]) -> np.ndarray:
    """Starts in the optimiser's coordinates, (starts, coefficients); fixed coefficients are at their values.

    asked: a grid, or how many: the published coefficients first, then spread points."""
    if isinstance(asked, Mapping):
        theta = _grid(form, asked, fix)
    else:
        if asked < 1:
            raise errors.UserError(f"{asked} starts asked, at least 1 is needed")
        theta = np.concatenate([_published(form), _spread(form, asked)])[:asked]
    for i, name in enumerate(form.names):
        if name in fix:
            theta[:, i] = form.coefficients[name].inner(fix[name])
    return np.clip(theta, *form.bounds())


def screen(problem: Problem, theta: np.ndarray, keep: int) -> np.ndarray:
    """`keep` of the starts, in their order: half those with the lowest objective, half drawn at random from the others.

    A random point can be 1e5 nats off and converge slowly. The lowest alone may all lie in one wrong basin: the best
    160 of 2,048 of Abnar's starts on planted losses did, while 71 of all 2,048 reached the optimum. Of a large table
    the rows of `Problem.thinned` decide."""
    if len(theta) <= keep:
        return theta
    problem = problem.thinned()
    blocks = np.array_split(theta, -(-len(theta) // _BLOCK))
    padded = [np.concatenate([b, np.tile(b[-1:], (_BLOCK - len(b), 1))]) for b in blocks]  # one shape, one compile
    values = np.concatenate([problem.values(p)[: len(b)] for p, b in zip(padded, blocks, strict=True)])
    order = np.argsort(np.where(np.isfinite(values), values, np.inf), kind="stable")
    lowest, others = np.split(order, [keep - keep // 2])
    drawn = np.random.default_rng(0).permutation(others)[: keep // 2]
    return theta[np.sort(np.concatenate([lowest, drawn]))]


def _published(form: Form) -> np.ndarray:
    return np.array([form.inner(values) for values in form.published.values()]).reshape(-1, len(form.names))


def _spread(form: Form, n: int) -> np.ndarray:
    """A low-discrepancy sequence (Roberts' R_d) over the declared boxes: the same points every time, no clumps."""
    P = len(form.names)
    root = 2.0
    for _ in range(64):  # the positive root of x^(P+1) = x + 1
        root = (1 + root) ** (1 / (P + 1))
    step = root ** -np.arange(1.0, P + 1)
    unit = (0.5 + np.arange(1, n + 1)[:, None] * step) % 1.0
    low, high = np.array([[c.inner(v) for v in c.start] for c in form.coefficients.values()], np.float64).T
    return low + unit * (high - low)


def _grid(form: Form, grid: Mapping[str, list], fix: Mapping[str, float]) -> np.ndarray:
    """Every combination of the values given for each coefficient (in the coefficient's own units)."""
    if missing := [k for k in form.names if k not in grid and k not in fix]:
        raise errors.UserError(f"the grid of starts has no values for {', '.join(missing)} of {form.name}")
    axes = [form.coefficients[k].inner(np.asarray([fix[k]] if k in fix else grid[k], np.float64)) for k in form.names]
    return np.array(list(itertools.product(*axes)), np.float64)
