"""What a fit minimises, and its derivatives for many problems at once.

    f(θ) = Σ_rows w · huber(residual) + Σw · (l1·Σ|θ| + l2·Σθ²)

residual = ln L − ln loss (space "log") or L − loss ("linear"), in float64. Huber(r) = r²/2 up to δ, then δ(|r| − δ/2).
θ are the optimiser's coordinates (logarithms of positive coefficients), as in krajewski2024's code. The sum is
Besiroglu's convention; the factor Σw makes the penalty weigh as it does in a mean over rows, krajewski2024's
convention."""

import functools
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from moe_jax import errors
from moe_jax.laws.forms import Form

_KINK = 1e-6  # |θ| is √(θ² + kink²) in the l1 penalty, so that Newton steps exist at 0


@dataclass(frozen=True)
class Objective:
    """The settings that define what "best" means; frozen, so that a law.json can repeat them."""

    space: str = "log"  # log | linear
    huber: float = 1e-3  # δ; inf is least squares
    l1: float = 0.0
    l2: float = 0.0
    weight_exponent: float = 0.0  # rows weigh (ln loss)^−exponent, normalised to mean 1 (joint_moe2025: 30)

    def __post_init__(self):
        if self.space not in ("log", "linear"):
            raise errors.UserError(f"space is {self.space!r}, must be log or linear")
        if not self.huber > 0:
            raise errors.UserError(f"huber is {self.huber}, must be above 0 (inf is least squares)")
        if min(self.l1, self.l2) < 0:
            raise errors.UserError(f"penalties are l1 {self.l1} and l2 {self.l2}, must not be negative")

    def to_json(self) -> dict:
        return {**asdict(self), "huber": self.huber if math.isfinite(self.huber) else "inf"}  # JSON has no infinity

    def row_weights(self, losses: np.ndarray) -> np.ndarray:
        if self.weight_exponent == 0:
            return np.ones(len(losses))
        weights = np.log(losses) ** -self.weight_exponent
        return weights / weights.mean()


class Problem:
    """One form on one table of rows: evaluates batches of θ with batches of row weights.

    columns: by symbol, (rows,); losses: (rows,) nats. Everything runs in float64 on the host's CPU, in a scope of its
    own: the importing process keeps its precision and its accelerator."""

    def __init__(self, form: Form, columns: Mapping, losses: np.ndarray, objective: Objective):
        self.form, self.objective = form, objective
        self.columns = tuple(np.asarray(columns[s], np.float64) for s in form.symbols)
        self.losses = np.asarray(losses, np.float64)
        self.target = np.log(self.losses) if objective.space == "log" else self.losses
        self.weights = objective.row_weights(self.losses)

    def at(self, **changes) -> "Problem":
        """The same rows under another objective; the compiled kernel is shared unless the space changes."""
        return Problem(
            self.form,
            dict(zip(self.form.symbols, self.columns, strict=True)),
            self.losses,
            replace(self.objective, **changes),
        )

    def normal_equations(self, theta_BxP: np.ndarray, weights_BxR: np.ndarray):
        """f (B), gradient (B, P), and two curvatures (B, P, P): of rows within δ, and the majorizer of rows outside."""
        return self._run(_normal_equations, theta_BxP, weights_BxR)

    def values(self, theta_BxP: np.ndarray, weights_BxR: np.ndarray) -> np.ndarray:
        return self._run(_values, theta_BxP, weights_BxR)

    def _run(self, kernel, theta_BxP, weights_BxR):
        with jax.enable_x64(True), jax.default_device(jax.devices("cpu")[0]):
            scalars = np.array([self.objective.huber, self.objective.l1, self.objective.l2])
            out = kernel(self.form, self.objective.space)(theta_BxP, weights_BxR, self.columns, self.target, scalars)
            return jax.tree.map(np.asarray, out)


def _residuals(form: Form, space: str, theta_P, columns, target_R):
    coefficients = [jnp.exp(t) if c.positive else t for t, c in zip(theta_P, form.coefficients.values(), strict=True)]
    loss_R = form.function(*columns, *coefficients)
    return (jnp.log(loss_R) if space == "log" else loss_R) - target_R


def _huber(residual_R, delta):
    """ρ, and the two weights of its curvature: 1 within δ (Newton's), δ/|r| outside (the quadratic that majorizes ρ
    there)."""
    size_R = jnp.abs(residual_R)
    inside_R = size_R <= delta
    rho_R = jnp.where(inside_R, 0.5 * residual_R**2, delta * (size_R - 0.5 * delta))
    outside_R = jnp.where(inside_R, 0.0, delta / jnp.where(inside_R, 1.0, size_R))
    return rho_R, inside_R.astype(residual_R.dtype), outside_R


def _penalty(theta_P, l1, l2):
    """Value, gradient and curvature (diagonal) of l1·Σ|θ| + l2·Σθ²."""
    size_P = jnp.sqrt(theta_P**2 + _KINK**2)
    value = l1 * (size_P - _KINK).sum() + l2 * (theta_P**2).sum()
    return value, l1 * theta_P / size_P + 2 * l2 * theta_P, l1 * _KINK**2 / size_P**3 + 2 * l2


@functools.cache
def _normal_equations(form: Form, space: str):
    def one(theta_P, weight_R, columns, target_R, scalars):
        delta, l1, l2 = scalars
        residual_R, push = jax.linearize(lambda t: _residuals(form, space, t, columns, target_R), theta_P)
        jacobian_PxR = jax.vmap(push)(jnp.eye(len(theta_P), dtype=theta_P.dtype))
        rho_R, inside_R, outside_R = _huber(residual_R, delta)
        penalty, slope_P, bend_P = _penalty(theta_P, l1, l2)
        total = weight_R.sum()
        inner_PxR = jacobian_PxR * (weight_R * inside_R)[None, :]
        outer_PxR = jacobian_PxR * (weight_R * outside_R)[None, :]
        return (
            (weight_R * rho_R).sum() + total * penalty,
            (inner_PxR + outer_PxR) @ residual_R + total * slope_P,
            inner_PxR @ jacobian_PxR.T + total * jnp.diag(bend_P),
            outer_PxR @ jacobian_PxR.T,
        )

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None, None, None)))


@functools.cache
def _values(form: Form, space: str):
    def one(theta_P, weight_R, columns, target_R, scalars):
        delta, l1, l2 = scalars
        rho_R, *_ = _huber(_residuals(form, space, theta_P, columns, target_R), delta)
        return (weight_R * rho_R).sum() + weight_R.sum() * _penalty(theta_P, l1, l2)[0]

    return jax.jit(jax.vmap(one, in_axes=(0, 0, None, None, None)))
