"""The objective of a fit and its derivatives, for many problems at once.

    f(θ) = Σ_rows w · side(residual) · huber(residual) + Σw · (l1·Σ|θ| + l2·Σθ²)    (w: see row_weights as well)

residual = ln L − ln loss (space "log") or L − loss ("linear"), in float64: negative where the law lies below the run.
Huber(r) = r²/2 up to δ, then δ(|r| − δ/2). side(r) = one_sided for r < 0, else 1.
θ are the optimiser's coordinates (logarithms of positive coefficients), as in krajewski2024's code. The sum is
Besiroglu's convention; the factor Σw makes the penalty weigh as it does in a mean over rows, krajewski2024's
convention.

The rows of a large table are summed in chunks, so that no array has a place for each row, problem and coefficient."""

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax import errors
from moe_jax.laws.forms import Form
from moe_jax.laws.row_weights import RowWeights

WHOLE = 512  # rows that are summed at once
CHUNK = 128  # rows of a larger table that are: with 8 problems their derivatives stay in a core's cache
THINNED = 4096  # rows that show where the minima are
_KINK = 1e-6  # |θ| is √(θ² + kink²) in the l1 penalty, so that Newton steps exist at 0


@dataclass(frozen=True)
class Objective:
    """The settings of the objective; law.json records them. Raises UserError for invalid settings.

    one_sided: an under-tuned run errs upward only, so the law may lie below it at less cost. Rows whose residual
    L − loss is negative (the law below the run) count this much, rows where the law lies above the run count 1. Below 1
    the law follows the lower edge of the runs: on well-tuned runs with noise it lies too low."""

    space: str = "log"  # log | linear
    huber: float = 1e-3  # δ; inf is least squares
    l1: float = 0.0
    l2: float = 0.0
    weight_exponent: float = 0.0  # rows weigh (ln loss)^−exponent, normalised to mean 1 (joint_moe2025: 30)
    one_sided: float = 1.0  # weight of rows that the law lies below; 1: both sides alike

    def __post_init__(self):
        if self.space not in ("log", "linear"):
            raise errors.UserError(f"space is {self.space!r}, must be log or linear")
        if not self.huber > 0:
            raise errors.UserError(f"huber is {self.huber}, must be above 0 (inf is least squares)")
        if min(self.l1, self.l2) < 0:
            raise errors.UserError(f"penalties are l1 {self.l1} and l2 {self.l2}, must not be negative")
        if not 0 < self.one_sided <= 1:
            raise errors.UserError(
                f"one_sided is {self.one_sided}, the weight of runs above the law: it must be above 0 and at most 1"
            )

    @property
    def is_biased(self) -> bool:
        """Whether it pulls the law off the middle of the rows: by a penalty, or by weighing one side less."""
        return bool(self.l1 or self.l2 or self.one_sided != 1)

    def to_json(self) -> dict:
        """The settings, for law.json."""
        return {**asdict(self), "huber": self.huber if math.isfinite(self.huber) else "inf"}  # JSON has no infinity

    @classmethod
    def from_json(cls, stored: Mapping) -> "Objective":
        """The objective that law.json repeats. Raises errors.UserError where it is not one."""
        try:
            numbers = {k: float(stored[k]) for k in ("huber", "l1", "l2", "weight_exponent", "one_sided")}
            return cls(space=stored["space"], **numbers)
        except (KeyError, TypeError, ValueError) as e:
            raise errors.UserError(f"law.json has no objective that can be read ({type(e).__name__}: {e})") from e

    def row_weights(self, losses: np.ndarray, asked: np.ndarray | None = None) -> np.ndarray:
        """The weight of each row (rows,), mean 1; losses in nats. asked: weights of the user's, which multiply them."""
        if self.weight_exponent == 0 and asked is None:
            return np.ones(len(losses))
        weights = np.log(losses) ** -self.weight_exponent * (1.0 if asked is None else asked)
        return weights / weights.mean()


class Problem:
    """The objective of one form on one table of rows, for batches of θ and of row weights.

    columns: by symbol, (rows,); losses: (rows,) nats; asked: how much rows count. Shapes: B problems, P coefficients,
    R rows. Everything runs in float64 on the host's CPU, in a scope of its own: the importing process keeps its
    precision and its accelerator."""

    def __init__(
        self, form: Form, columns: Mapping, losses: np.ndarray, objective: Objective, asked: RowWeights | None = None
    ):
        self.form, self.objective, self.asked = form, objective, asked
        self.columns = tuple(np.asarray(columns[s], np.float64) for s in form.symbols)
        self.losses = np.asarray(losses, np.float64)
        self.target = np.log(self.losses) if objective.space == "log" else self.losses
        weights, self.widths = None, np.ones(len(self.losses))  # of the Huber loss: δ of each row is δ · width
        if asked is not None:
            weights, self.widths = asked.scales(self.losses, objective.space)
        self.weights = objective.row_weights(self.losses, weights)

    def at(self, **changes) -> "Problem":
        """The same rows under another objective; the compiled kernel is shared unless the space changes."""
        return Problem(
            self.form,
            dict(zip(self.form.symbols, self.columns, strict=True)),
            self.losses,
            replace(self.objective, **changes),
            self.asked,
        )

    def thinned(self) -> "Problem":
        """The problem on 4,096 of the rows, drawn at random; itself where it has no more."""
        rows = len(self.losses)
        if rows <= THINNED:
            return self
        some = np.sort(np.random.default_rng(0).choice(rows, THINNED, replace=False))
        columns = {s: v[some] for s, v in zip(self.form.symbols, self.columns, strict=True)}
        asked = None if self.asked is None else self.asked.take(some)
        return Problem(self.form, columns, self.losses[some], self.objective, asked)

    def normal_equations(self, theta_BxP: np.ndarray, weights_BxR: np.ndarray, target_BxR: np.ndarray | None = None):
        """f (B), gradient (B, P), and two curvatures (B, P, P): of rows within δ, and the majorizer of rows outside.

        target_BxR: what each problem's residuals are taken from, in the objective's space; default: the losses."""
        target_BxR = np.broadcast_to(self.target if target_BxR is None else target_BxR, weights_BxR.shape)
        return self._run(normal_equations_kernel, theta_BxP, weights_BxR, target_BxR)

    def values(self, theta_BxP: np.ndarray) -> np.ndarray:
        """f (B) under the problem's own row weights."""
        return self._run(values_kernel, theta_BxP, self.weights, self.target)

    def predicted(self, theta: np.ndarray) -> np.ndarray:
        """The law at theta (…, coefficients) on the rows, (…, rows), in the objective's space: ln loss or loss."""
        columns = dict(zip(self.form.symbols, self.columns, strict=True))
        loss = self.form.loss(columns, {k: v[..., None] for k, v in self.form.outer(theta).items()})
        with np.errstate(divide="ignore"):
            return np.log(loss) if self.objective.space == "log" else loss

    def _run(self, kernel, theta_BxP, weights, target):
        with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
            asked = self.objective
            scalars = np.array([asked.huber, asked.l1, asked.l2, asked.one_sided])
            out = kernel(self.form, asked.space)(theta_BxP, weights, self.columns, target, self.widths, scalars)
            return jax.tree.map(np.asarray, out)


def _residuals(form: Form, space: str, theta_P, columns, target_R):
    coefficients = [jnp.exp(t) if c.positive else t for t, c in zip(theta_P, form.coefficients.values(), strict=True)]
    loss_R = form.function(*columns, *coefficients)
    return (jnp.log(loss_R) if space == "log" else loss_R) - target_R


def _huber(residual_R, delta_R, one_sided):
    """ρ, and the two weights of its curvature: 1 within δ (Newton's), δ/|r| outside (of the majorizing quadratic); all
    three times one_sided where the law lies below the run."""
    side_R = jnp.where(residual_R < 0, one_sided, 1.0)
    size_R = jnp.abs(residual_R)
    inside_R = size_R <= delta_R
    rho_R = jnp.where(inside_R, 0.5 * residual_R**2, delta_R * (size_R - 0.5 * delta_R))
    outside_R = jnp.where(inside_R, 0.0, delta_R / jnp.where(inside_R, 1.0, size_R))
    return side_R * rho_R, side_R * inside_R.astype(residual_R.dtype), side_R * outside_R


def _penalty(theta_P, l1, l2):
    """Value, gradient and curvature (diagonal) of l1·Σ|θ| + l2·Σθ²."""
    size_P = jnp.sqrt(theta_P**2 + _KINK**2)
    value = l1 * (size_P - _KINK).sum() + l2 * (theta_P**2).sum()
    return value, l1 * theta_P / size_P + 2 * l2 * theta_P, l1 * _KINK**2 / size_P**3 + 2 * l2


def _sum_rows(sums, weight_R, columns, target_R, width_R):
    """sums(weight_R, columns, target_R, width_R) over all rows, in chunks where they are many."""
    rows, given = len(target_R), (weight_R, columns, target_R, width_R)
    if rows <= WHOLE:
        return sums(*given)
    before = (rows - 1) // CHUNK  # chunks before the last one, which may be shorter

    def part(start, size):
        return sums(*jax.tree.map(lambda x_R: jax.lax.dynamic_slice_in_dim(x_R, start, size), given))

    last = part(before * CHUNK, rows - before * CHUNK)
    return jax.lax.fori_loop(0, before, lambda i, sum_: jax.tree.map(jnp.add, sum_, part(i * CHUNK, CHUNK)), last)


@functools.cache
def normal_equations_kernel(form: Form, space: str):
    """The compiled function behind `Problem.normal_equations`, each problem with its own weights and targets (B, R)."""

    def one(theta_P, weight_R, columns, target_R, width_R, scalars):
        delta, l1, l2, one_sided = scalars

        def sums(weight_R, columns, target_R, width_R):
            residual_R, push = jax.linearize(lambda t: _residuals(form, space, t, columns, target_R), theta_P)
            jacobian_PxR = jax.vmap(push)(jnp.eye(len(theta_P), dtype=theta_P.dtype))
            rho_R, inside_R, outside_R = _huber(residual_R, delta * width_R, one_sided)
            inner_PxR = jacobian_PxR * (weight_R * inside_R)[None, :]
            outer_PxR = jacobian_PxR * (weight_R * outside_R)[None, :]
            return (
                weight_R.sum(),
                (weight_R * rho_R).sum(),
                (inner_PxR + outer_PxR) @ residual_R,
                inner_PxR @ jacobian_PxR.T,
                outer_PxR @ jacobian_PxR.T,
            )

        total, f, gradient_P, inside_PxP, outside_PxP = _sum_rows(sums, weight_R, columns, target_R, width_R)
        penalty, slope_P, bend_P = _penalty(theta_P, l1, l2)
        return (
            f + total * penalty,
            gradient_P + total * slope_P,
            inside_PxP + total * jnp.diag(bend_P),
            outside_PxP,
        )

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None, 0, None, None)))


@functools.cache
def values_kernel(form: Form, space: str):
    """The compiled function behind `Problem.values`; all problems share their weights (R)."""

    def one(theta_P, weight_R, columns, target_R, width_R, scalars):
        delta, l1, l2, one_sided = scalars

        def sums(weight_R, columns, target_R, width_R):
            rho_R, *_ = _huber(_residuals(form, space, theta_P, columns, target_R), delta * width_R, one_sided)
            return (weight_R * rho_R).sum(), weight_R.sum()

        f, total = _sum_rows(sums, weight_R, columns, target_R, width_R)
        return f + total * _penalty(theta_P, l1, l2)[0]

    return jax.jit(jax.vmap(one, in_axes=(0, None, None, None, None, None)))
