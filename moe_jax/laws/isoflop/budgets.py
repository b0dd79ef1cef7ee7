"""Groups runs by the budget of FLOPs that they share."""

from collections.abc import Sequence

import numpy as np

from moe_jax import errors

TOLERANCE = 0.1  # a run belongs to a budget if its FLOPs differ by at most this share


def group(flops: np.ndarray, budgets: Sequence[float] | None, tolerance: float = TOLERANCE) -> dict[float, np.ndarray]:
    """Budget (FLOPs) -> indices of its runs, by ascending budget; a run near no budget is in no group.

    budgets: None finds them: runs whose FLOPs differ by less than `tolerance` share one, their geometric mean. Raises
    UserError where FLOPs spread without gaps, and for budgets without a run."""
    flops = np.asarray(flops, float)
    if not 0 < tolerance < 1:
        raise errors.UserError(f"a tolerance of {tolerance:g} of a budget, must be inside (0, 1)")
    budgets = _found(flops, tolerance) if budgets is None else np.sort(np.asarray(budgets, float))
    if not (budgets > 0).all():
        raise errors.UserError(f"a budget of {budgets.min():g} FLOPs, must be above zero")
    nearest = np.abs(np.log(flops)[:, None] - np.log(budgets)).argmin(1)
    near = np.abs(flops / budgets[nearest] - 1) <= tolerance
    groups = {float(C): np.flatnonzero(near & (nearest == i)) for i, C in enumerate(budgets)}
    if not near.any():
        known = ", ".join(f"{C:.3g}" for C in budgets)
        raise errors.UserError(
            f"no run is within {tolerance:.0%} of a budget of {known} FLOPs: there is nothing to fit"
        )
    return {C: g for C, g in groups.items() if len(g)}


def _found(flops: np.ndarray, tolerance: float) -> np.ndarray:
    log_f = np.sort(np.log(flops))
    parts = np.split(log_f, np.flatnonzero(np.diff(log_f) > np.log1p(tolerance)) + 1)
    if any(p[-1] - p[0] > 2 * np.log1p(tolerance) for p in parts):
        raise errors.UserError(
            f"the runs' FLOPs, {flops.min():.3g} to {flops.max():.3g}, lie too close to be grouped into budgets;"
            " --budgets names them"
        )
    return np.exp([p.mean() for p in parts])
