"""Levenberg-Marquardt for Huber objectives, many problems in lockstep.

A fixed number of lanes each work on one problem (a start, a bootstrap sample, a point of a profile); a lane that has
finished takes the next problem from the queue, so a few bad starts delay no other and one compiled kernel serves all.
Steps solve

    (C_in + λ (C_out + diag)) s = −gradient

where C_in is the curvature of rows with |residual| ≤ δ and C_out that of the quadratic majorizing the rows outside: λ =
1 is a reweighted least-squares step, which always descends, λ → 0 is Newton's, which converges fast. Measured against
scipy and others in experiments/benchmarks/laws.py."""

import os
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from moe_jax.laws.objective import WHOLE, Problem

LANES = 128  # more do not fit the caches: on 75 rows a step of 256 takes four times as long
GROUP = 8  # lanes of a large table that are evaluated together
_GROUP_BYTES = 2**29  # of the row weights of all groups that are evaluated at the same time
_LONGEST = 2.0  # largest change of any coordinate in a step; coordinates are exponents and logarithms
_LAMBDA = (1e-14, 1e12)
EASY = 1e-3  # the smallest δ whose minima are found directly
_FINALISTS = 32  # starts that go on to a smaller δ
_SAME = 1e-6  # objectives within this share of the best are the best
_ZERO = 1e-22  # objective per row that counts as zero: data without noise are met


@dataclass(frozen=True)
class Minima:
    """Where each problem ended."""

    theta: np.ndarray  # (problems, coefficients)
    value: np.ndarray  # (problems,)
    converged: np.ndarray  # (problems,) bool: stopped by itself before max_steps
    steps: np.ndarray  # (problems,) evaluations of the normal equations


Ended = Callable[[int, int], None]  # is told how many problems have ended, of how many
Targets = Callable[[np.ndarray], np.ndarray]  # problems (b,) -> their targets (b, rows)


def search(
    problem: Problem, starts_BxP: np.ndarray, free_P: np.ndarray, ended: Ended | None = None
) -> tuple[np.ndarray, float, int]:
    """The best optimum from many starts: (θ, objective, number of starts that reached it).

    Under a tiny δ, and on a large table, the starts are optimised under a larger δ and on a part of the rows; the best
    go on from there."""
    thinned = problem.thinned()
    wide = thinned.at(huber=max(problem.objective.huber, EASY))
    found = minimise(wide, starts_BxP, free_BxP=free_P, ended=ended)
    at_best = (
        int((found.value <= found.value.min() * (1 + _SAME) + _ZERO * len(wide.losses)).sum())
        if np.isfinite(found.value).any()
        else 0
    )
    if problem.objective.huber < EASY or thinned is not problem:
        found = descend(problem, found.theta[np.argsort(found.value)[:_FINALISTS]], free_BxP=free_P, ended=ended)
    best = int(found.value.argmin())
    return found.theta[best], float(found.value[best]), at_best


def descend(
    problem: Problem,
    starts_BxP: np.ndarray,
    counts_BxR=None,
    free_BxP=None,
    *,
    targets: Targets | None = None,
    ended: Ended | None = None,
) -> Minima:
    """As `minimise`, but a tiny δ is approached through larger ones.

    Least absolute deviations have a corner at every row; the corner of the minimum is found by following the minimum
    from δ = 1e-3 down."""
    goal = problem.objective.huber
    delta = max(goal, EASY)
    while delta > goal:
        wider = problem.at(huber=delta)
        starts_BxP = minimise(
            wider, starts_BxP, counts_BxR, free_BxP, targets=targets, tolerance=1e-9, ended=ended
        ).theta
        delta = max(goal, delta / 10)
    return minimise(problem, starts_BxP, counts_BxR, free_BxP, targets=targets, ended=ended)


def minimise(
    problem: Problem,
    starts_BxP: np.ndarray,
    counts_BxR: np.ndarray | None = None,
    free_BxP: np.ndarray | None = None,
    *,
    targets: Targets | None = None,
    tolerance: float = 1e-12,
    max_steps: int = 400,
    ended: Ended | None = None,
) -> Minima:
    """Minimises from every start, each with its own free coefficients and number of times that a row counts (default:
    once), which multiplies the row's weight.

    targets: gives the targets (b, rows) of problems (b,) in the objective's space; default: the losses.

    A lane stops when accepted steps improve f by less than `tolerance` (relative) three times in a row, or when no
    step improves it. The function is long because one loop holds the state of all lanes."""
    B, P = starts_BxP.shape
    rows = len(problem.losses)
    counts = np.broadcast_to(np.uint8(1) if counts_BxR is None else counts_BxR, (B, rows))
    free = np.broadcast_to(True if free_BxP is None else free_BxP, (B, P))
    low, high = problem.form.bounds()

    out = Minima(np.array(starts_BxP, float), np.full(B, np.inf), np.zeros(B, bool), np.zeros(B, int))
    lanes = LANES
    job = np.full(lanes, -1)  # the problem that a lane works on; −1: idle
    waiting = 0
    theta, trial = np.zeros((lanes, P)), np.tile(np.clip(0.5, low, high), (lanes, 1))
    value = np.full(lanes, np.inf)
    gradient, inside, outside = np.zeros((lanes, P)), np.zeros((lanes, P, P)), np.zeros((lanes, P, P))
    damping, growth, calm, steps = np.ones(lanes), np.full(lanes, 2.0), np.zeros(lanes, int), np.zeros(lanes, int)
    predicted = np.ones(lanes)
    lane_free = np.ones((lanes, P), bool)
    own = None if targets is None or rows > WHOLE else np.zeros((lanes, rows))  # a large table's are made at each step

    while True:
        idle = np.flatnonzero(job < 0)[: B - waiting]
        if len(idle):
            new = np.arange(waiting, waiting + len(idle))
            waiting += len(idle)
            job[idle], value[idle], damping[idle], growth[idle] = new, np.inf, 1.0, 2.0
            calm[idle], steps[idle], predicted[idle] = 0, 0, 1.0
            theta[idle] = trial[idle] = starts_BxP[new]
            lane_free[idle] = free[new]
            if own is not None:
                own[idle] = targets(new)
        busy = job >= 0
        if not busy.any():
            return out

        f, g, c_in, c_out = _evaluate(problem, trial, counts, job, targets if own is None else lambda _: own)
        steps += 1
        with np.errstate(invalid="ignore", over="ignore"):
            finite = np.isfinite(f) & np.isfinite(g).all(1) & np.isfinite(c_in + c_out).all((1, 2))
            better = finite & (f < value)
            gain = np.where(finite & np.isfinite(value), np.clip((value - f) / predicted, 0.0, 4.0), 1.0)
            small = better & (value - f <= tolerance * np.abs(f) + _ZERO * rows)
        # Nielsen's rule: the better the quadratic model predicted, the less damping; each refusal doubles its growth
        damping = np.where(better, damping * np.clip(1 - (2 * gain - 1) ** 3, 0.1, 2.0), damping * growth)
        growth = np.where(better, 2.0, np.minimum(growth * 2, 1e6))
        damping = np.clip(damping, *_LAMBDA)
        calm = np.where(small, calm + 1, np.where(better, 0, calm))
        theta[better], value[better], gradient[better] = trial[better], f[better], g[better]
        inside[better], outside[better] = c_in[better], c_out[better]

        stuck = ~np.isfinite(value) | (damping >= _LAMBDA[1])
        finished = busy & ((calm >= 3) | stuck | (steps >= max_steps))
        done = job[finished]
        out.theta[done], out.value[done], out.steps[done] = theta[finished], value[finished], steps[finished]
        out.converged[done] = np.isfinite(value[finished]) & (steps[finished] < max_steps)
        job[finished] = -1
        if ended is not None and finished.any():
            ended(waiting - int((job >= 0).sum()), B)

        trial, predicted = _step(theta, gradient, inside, outside, damping, lane_free, low, high)


def _evaluate(
    problem: Problem, trial_LxP: np.ndarray, counts_BxR: np.ndarray, job_L: np.ndarray, targets: Targets | None
) -> list[np.ndarray]:
    """The normal equations of all lanes at their trials.

    On a large table idle lanes cost nothing, and get f = inf; the others are evaluated in groups, as many at a time as
    there are cores and _GROUP_BYTES allow."""
    rows = len(problem.losses)

    def of(lanes):
        jobs = job_L[lanes]
        own = None if targets is None else targets(np.maximum(jobs, 0))  # of an idle lane: any
        return problem.normal_equations(trial_LxP[lanes], counts_BxR[jobs] * problem.weights, own)

    if rows <= WHOLE:
        return of(slice(None))
    busy = np.flatnonzero(job_L >= 0)
    groups = [busy[i : i + GROUP] for i in range(0, len(busy), GROUP)]
    at_once = max(1, min(os.cpu_count() or 1, _GROUP_BYTES // (8 * GROUP * rows)))
    with ThreadPoolExecutor(at_once) as threads:  # results do not depend on how many
        found = list(threads.map(lambda group: of(np.resize(group, GROUP)), groups))  # one shape, one compile
    out = [np.zeros((len(job_L), *part.shape[1:])) for part in found[0]]
    out[0][:] = np.inf
    for group, parts in zip(groups, found, strict=True):
        for whole, part in zip(out, parts, strict=True):
            whole[group] = part[: len(group)]
    return out


def _step(theta, gradient, inside, outside, damping, free, low, high):
    """The next trial, and the fall of f that the quadratic model predicts.

    A coordinate at a bound whose gradient points outward is held."""
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
    root = 1 / np.sqrt(scale)  # to a unit diagonal: else ln a and ln b beside exponents lose digits
    scaled = matrix * root[:, :, None] * root[:, None, :]
    scaled += np.where(held, 1.0, 1e-15)[:, :, None] * np.eye(P)
    step = -root * np.linalg.solve(scaled, (root * g)[..., None])[..., 0]
    step *= np.minimum(1, _LONGEST / np.maximum(np.abs(step).max(1, keepdims=True), 1e-300))
    trial = np.clip(theta + step, low, high)
    step = trial - theta
    # The curvature of rows outside stays out: with it the model would predict too large a fall at λ → 0.
    predicted = -(g * step).sum(1) - 0.5 * np.einsum("bp,bpq,bq->b", step, curvature, step)
    return trial, np.maximum(predicted, 1e-300)
