"""What a plan chosen by FLOPs costs by the clock."""

from dataclasses import replace

import numpy as np

from moe_jax import errors
from moe_jax.laws.planner import Plan, Planner


def best_by_flops(clock: Planner, seconds: float) -> Plan:
    """The plan of lowest loss for its FLOPs that takes `seconds` of one chip, with its chip_seconds and no intervals.

    Where the best shape jumps with the FLOPs so does the time: then the last plan before the jump, which takes a little
    less. clock: a planner with a speed. Raises UserError for a time in which no plan of 1e12 to 1e35 FLOPs fits."""
    by_flops = replace(clock, law=replace(clock.law, samples={}), speed=None)
    low, high = np.log(1.001e12), np.log(0.999e35)
    if _timed(by_flops.best(np.exp(low)), clock).values["chip_seconds"] > seconds:
        raise errors.UserError(f"{seconds:.3g} chip-seconds are less than a plan of 1e12 FLOPs takes")
    for _ in range(50):
        middle = (low + high) / 2
        fits = _timed(by_flops.best(np.exp(middle)), clock).values["chip_seconds"] <= seconds
        low, high = (middle, high) if fits else (low, middle)
    return _timed(by_flops.best(np.exp(low)), clock)


def _timed(plan: Plan, clock: Planner) -> Plan:
    columns = {k: np.float64(v) for k, v in plan.values.items()}
    seconds = plan.values["tokens"] * float(clock.speed.seconds_per_token(clock.shape, columns))
    return replace(plan, values={**plan.values, "chip_seconds": seconds})
