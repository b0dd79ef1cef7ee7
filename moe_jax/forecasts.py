"""A plan's rows with what their compiled steps say: every distinct shape once, several at a time, with progress."""

import importlib.util
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait
from typing import Any

from moe_jax import compiles, plan_rows, tables
from moe_jax.compiles import Compiles
from moe_jax.errors import Stopped, UserError
from moe_jax.forecast import Forecast, Target, forecast
from moe_jax.manifest import PlannedRun
from moe_jax.plan_rows import Rates, Row
from moe_jax.progress import Display
from moe_jax.step_shapes import StepShape

_POLL_SECONDS = 0.2  # between looks at the signals


def missing_compiler() -> UserError | None:
    """What to do where this machine cannot compile for TPUs; None where it can."""
    if importlib.util.find_spec("libtpu") is not None:
        return None
    return UserError("--topology: compiling for TPUs needs libtpu: pip install 'moe_jax[plan]' (or pip install libtpu)")


def add(
    rows: Sequence[Row], runs: Sequence[PlannedRun], target: Target, rates: Rates, *, jobs: int,
    steps: Compiles | None = None,
) -> list[Row]:  # fmt: skip
    """The rows of `runs` with the columns of their compiled steps. Raises Stopped on an interrupt: what was compiled
    is kept."""
    shapes: dict[str, tuple[StepShape, int]] = {}
    keys = []
    for run in runs:
        shape = StepShape(run.config, run.counts["vocabulary_size"])
        shapes.setdefault(shape.key, (shape, run.counts["n_total"]))
        keys.append(shape.key)
    steps = steps or Compiles(compiles.default_folder())
    with Display() as display:
        found = _all(shapes, target, steps, jobs, display)
    return [
        plan_rows.with_step(
            row | {"step_shape": _shape_on(found[key], run).id}, found[key].columns(_step_flops(run)), rates
        )
        for row, run, key in zip(rows, runs, keys, strict=True)
    ]


def _shape_on(step: Forecast, run: PlannedRun) -> StepShape:
    """What was compiled for the run: its config, with the microbatches that were picked."""
    config = run.config if step.placement is None else step.placement.applied(run.config)
    return StepShape(config, run.counts["vocabulary_size"])


def _step_flops(run: PlannedRun) -> float:
    return run.counts["train_flops"] / run.counts["steps"]


def _all(
    shapes: dict[str, tuple[StepShape, int]], target: Target, steps: Compiles, jobs: int, display: Display
) -> dict[str, Forecast]:
    began, found = time.monotonic(), {}
    pool = ThreadPoolExecutor(jobs)
    # The largest first: what takes longest should not come last.
    order = sorted(shapes, key=lambda key: -shapes[key][1])
    open_ = {pool.submit(forecast, *shapes[key], target, steps.get): key for key in order}
    try:
        while open_:
            done, _ = wait(open_, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                found[open_.pop(future)] = future.result()
            display.update("shapes", len(found), len(shapes), _text(found, began, len(open_)), now=not open_)
    except BaseException as e:
        steps.stop()
        pool.shutdown(cancel_futures=True)
        if isinstance(e, (KeyboardInterrupt, Stopped)):
            kept = len(found) + sum(not f.cancelled() and f.exception() is None for f in open_)
            raise Stopped(
                f"stopped with {kept} of {len(shapes)} shapes compiled; they are kept, the same command goes on"
            ) from None
        raise
    pool.shutdown()
    return found


def _text(found: dict[str, Any], began: float, left: int) -> str:
    """Time left, by the time so far."""
    if not found or not left:
        return "compiled"
    return f"compiled, about {tables.duration((time.monotonic() - began) / len(found) * left)} left"
