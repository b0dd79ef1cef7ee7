"""Levenberg-Marquardt for Huber objectives, many problems in lockstep.

A fixed number of lanes each work on one problem (a start, a bootstrap sample, a point of a profile); a lane that has
finished takes the next problem from the queue, so a few bad starts hold nobody up and one compiled kernel serves all.
Steps solve

    (C_in + λ (C_out + diag)) s = −gradient

where C_in is the curvature of rows with |residual| ≤ δ and C_out that of the quadratic majorizing the rows outside: λ =
1 is a reweighted least-squares step, which always descends, λ → 0 is Newton's, which converges fast. Measured against
scipy and others in experiments/benchmarks/laws.py."""

from dataclasses import dataclass

import numpy as np

from moe_jax.laws.objective import Problem

LANES = 128  # more do not fit the caches: 256 take four times as long a step as 128, on 75 rows
_LONGEST = 2.0  # largest change of any coordinate in a step; coordinates are exponents and logarithms
_LAMBDA = (1e-14, 1e12)
_EASY = 1e-3  # δ from which minima are found without help
_FINALISTS = 32  # starts that go on to a smaller δ
_SAME = 1e-6  # objectives within this share of the best are the best
_NOTHING = 1e-22  # objective per row below which data without noise count as met


@dataclass(frozen=True)
class Minima:
    theta: np.ndarray  # (problems, coefficients)
    value: np.ndarray  # (problems,)
    converged: np.ndarray  # (problems,) bool: stopped by itself before max_steps
    steps: np.ndarray  # (problems,) evaluations of the normal equations


def search(problem: Problem, starts_BxP: np.ndarray, free_P: np.ndarray) -> tuple[np.ndarray, float, int]:
    """The best optimum from many starts: (θ, objective, how many starts reached it)."""
    wide = problem.at(huber=max(problem.objective.huber, _EASY))
    found = minimise(wide, starts_BxP, free_BxP=free_P)
    at_best = (
        int((found.value <= found.value.min() * (1 + _SAME) + _NOTHING * len(problem.losses)).sum())
        if np.isfinite(found.value).any()
        else 0
    )
    if problem.objective.huber < _EASY:
        found = descend(problem, found.theta[np.argsort(found.value)[:_FINALISTS]], free_BxP=free_P)
    best = int(found.value.argmin())
    return found.theta[best], float(found.value[best]), at_best


def descend(problem: Problem, starts_BxP: np.ndarray, weights_BxR=None, free_BxP=None) -> Minima:
    """`minimise`, by way of larger δ where δ is tiny: least absolute deviations have a corner at every row, and the
    corner to end in is found by following the minimum from 1e-3 down."""
    goal = problem.objective.huber
    delta = max(goal, _EASY)
    while delta > goal:
        starts_BxP = minimise(problem.at(huber=delta), starts_BxP, weights_BxR, free_BxP, tolerance=1e-9).theta
        delta = max(goal, delta / 10)
    return minimise(problem, starts_BxP, weights_BxR, free_BxP)


def minimise(
    problem: Problem,
    starts_BxP: np.ndarray,
    weights_BxR: np.ndarray | None = None,
    free_BxP: np.ndarray | None = None,
    *,
    tolerance: float = 1e-12,
    max_steps: int = 400,
) -> Minima:
    """Minimises every start under its own row weights (default: the problem's) and its own set of free coefficients.

    Stops a lane when accepted steps improve f by less than `tolerance` (relative) three times in a row, or none can.
    """
    B, P = starts_BxP.shape
    rows = len(problem.losses)
    weights = np.broadcast_to(problem.weights if weights_BxR is None else weights_BxR, (B, rows))
    free = np.broadcast_to(True if free_BxP is None else free_BxP, (B, P))
    low, high = problem.form.bounds()

    out = Minima(np.array(starts_BxP, float), np.full(B, np.inf), np.zeros(B, bool), np.zeros(B, int))
    lanes = LANES
    job = np.full(lanes, -1)  # which problem a lane works on; −1: idle
    waiting = 0
    theta, trial = np.zeros((lanes, P)), np.tile(np.clip(0.5, low, high), (lanes, 1))
    value = np.full(lanes, np.inf)
    gradient, inside, outside = np.zeros((lanes, P)), np.zeros((lanes, P, P)), np.zeros((lanes, P, P))
    damping, growth, calm, steps = np.ones(lanes), np.full(lanes, 2.0), np.zeros(lanes, int), np.zeros(lanes, int)
    predicted = np.ones(lanes)
    lane_weights, lane_free = np.ones((lanes, rows)), np.ones((lanes, P), bool)

    while True:
        idle = np.flatnonzero(job < 0)[: B - waiting]
        if len(idle):
            new = np.arange(waiting, waiting + len(idle))
            waiting += len(idle)
            job[idle], value[idle], damping[idle], growth[idle] = new, np.inf, 1.0, 2.0
            calm[idle], steps[idle], predicted[idle] = 0, 0, 1.0
            theta[idle] = trial[idle] = starts_BxP[new]
            lane_weights[idle], lane_free[idle] = weights[new], free[new]
        busy = job >= 0
        if not busy.any():
            return out

        f, g, c_in, c_out = problem.normal_equations(trial, lane_weights)
        steps += 1
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(f) & np.isfinite(g).all(1) & np.isfinite(c_in + c_out).all((1, 2))
            better = finite & (f < value)
            gain = np.where(finite & np.isfinite(value), np.clip((value - f) / predicted, 0.0, 4.0), 1.0)
            small = better & (value - f <= tolerance * np.abs(f) + _NOTHING * rows)
        # Nielsen's rule: the better the quadratic model predicted, the less damping; doubled growth at each refusal
        damping = np.where(better, damping * np.clip(1 - (2 * gain - 1) ** 3, 0.1, 2.0), damping * growth)
        growth = np.where(better, 2.0, np.minimum(growth * 2, 1e6))
        damping = np.clip(damping, *_LAMBDA)
        calm = np.where(small, calm + 1, np.where(better, 0, calm))
        theta[better], value[better], gradient[better] = trial[better], f[better], g[better]
        inside[better], outside[better] = c_in[better], c_out[better]

        stuck = ~np.isfinite(value) | (damping >= _LAMBDA[1])
        finished = busy & ((calm >= 3) | stuck | (steps >= max_steps))
        ended = job[finished]
        out.theta[ended], out.value[ended], out.steps[ended] = theta[finished], value[finished], steps[finished]
        out.converged[ended] = np.isfinite(value[finished]) & (steps[finished] < max_steps)
        job[finished] = -1

        trial, predicted = _step(theta, gradient, inside, outside, damping, lane_free, low, high)


def _step(theta, gradient, inside, outside, damping, free, low, high):
    """The next trial and by how much the quadratic model says f falls; coordinates at a wall that push outward are
    held."""
    P = theta.shape[1]
    held = ~free | ((theta <= low) & (gradient > 0)) | ((theta >= high) & (gradient < 0))
    keep = ~held
    g = np.where(keep, gradient, 0.0)
    both = keep[:, :, None] & keep[:, None, :]
    curvature = np.where(both, inside, 0.0)
    scale = np.einsum("bpp->bp", inside + outside)
    scale = np.maximum(scale, 1e-12 * scale.max(1, keepdims=True) + 1e-300)
    damper = np.where(both, outside, 0.0) + scale[:, :, None] * np.eye(P)
    matrix = curvature + damping[:, None, None] * damper
    root = 1 / np.sqrt(scale)  # scaled to a unit diagonal, else ln a and ln b against exponents lose digits
    scaled = matrix * root[:, :, None] * root[:, None, :]
    scaled += np.where(held, 1.0, 1e-15)[:, :, None] * np.eye(P)
    step = -root * np.linalg.solve(scaled, (root * g)[..., None])[..., 0]
    step *= np.minimum(1, _LONGEST / np.maximum(np.abs(step).max(1, keepdims=True), 1e-300))
    trial = np.clip(theta + step, low, high)
    step = trial - theta
    # the model's curvature includes the rows outside: at λ → 0 it would promise too much
    predicted = -(g * step).sum(1) - 0.5 * np.einsum("bp,bpq,bq->b", step, curvature, step)
    return trial, np.maximum(predicted, 1e-300)
