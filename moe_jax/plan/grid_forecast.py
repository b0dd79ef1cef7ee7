"""Forecasts for a whole grid: compiles each distinct step shape once, several at a time, and adds columns to rows."""

import importlib.util
import time
from collections.abc import Sequence
from concurrent.futures import FIRST_COMPLETED, ThreadPoolExecutor, wait

from moe_jax import text
from moe_jax.config.identity import StepShape
from moe_jax.errors import Stopped, UserError
from moe_jax.plan import compiles
from moe_jax.plan.compiles import Compiles
from moe_jax.plan.rows import Rates, Row, with_step_columns
from moe_jax.plan.step_forecast import StepForecast, Target, forecast_step
from moe_jax.progress import Display
from moe_jax.sweep.manifest import PlannedRun

_POLL_SECONDS = 0.2  # between looks at the signals


def missing_compiler() -> UserError | None:
    """The error that says how to install libtpu; None where it is installed."""
    if importlib.util.find_spec("libtpu") is not None:
        return None
    return UserError("--topology: compiling for TPUs needs libtpu: pip install 'moe_jax[plan]' (or pip install libtpu)")


def add_forecasts(
    rows: Sequence[Row], runs: Sequence[PlannedRun], target: Target, rates: Rates, *, jobs: int,
    steps: Compiles | None = None,
) -> list[Row]:  # fmt: skip
    """The rows of `runs` with the columns of their compiled steps; `jobs` steps are compiled at a time.

    Raises Stopped on an interrupt; what was compiled by then is kept."""
    shapes: dict[str, tuple[StepShape, int]] = {}
    keys = []
    for run in runs:
        shape = StepShape(run.config, run.counts.vocab_size)
        shapes.setdefault(shape.key, (shape, run.counts.n_total))
        keys.append(shape.key)
    steps = steps or Compiles(compiles.default_folder())
    with Display() as display:
        forecasts = _forecast_shapes(shapes, target, steps, jobs, display)
    return [
        with_step_columns(row | {"step_shape": _shape_id(forecasts[key], run)},
                          forecasts[key].columns(run.counts.train_flops / run.counts.steps), rates)
        for row, run, key in zip(rows, runs, keys, strict=True)
    ]  # fmt: skip


def _shape_id(forecast: StepForecast, run: PlannedRun) -> str:
    """Identifies the step that was compiled for the run: its config's, with the microbatches that were picked."""
    config = run.config if forecast.placement is None else forecast.placement.applied(run.config)
    return StepShape(config, run.counts.vocab_size).id


def _forecast_shapes(
    shapes: dict[str, tuple[StepShape, int]], target: Target, steps: Compiles, jobs: int, display: Display
) -> dict[str, StepForecast]:
    began, found = time.monotonic(), {}
    pool = ThreadPoolExecutor(jobs)
    # The largest first: what takes longest should not come last.
    order = sorted(shapes, key=lambda key: -shapes[key][1])
    pending = {pool.submit(forecast_step, *shapes[key], target, steps.get): key for key in order}
    try:
        while pending:
            done, _ = wait(pending, timeout=_POLL_SECONDS, return_when=FIRST_COMPLETED)
            for future in done:
                found[pending.pop(future)] = future.result()
            left = _time_left(len(found), began, len(pending))
            display.update("shapes", len(found), len(shapes), left, now=not pending)
    except BaseException as e:
        steps.stop()
        pool.shutdown(cancel_futures=True)
        if isinstance(e, (KeyboardInterrupt, Stopped)):
            kept = len(found) + sum(not f.cancelled() and f.exception() is None for f in pending)
            raise Stopped(
                f"stopped with {kept} of {len(shapes)} shapes compiled; they are kept, the same command goes on"
            ) from None
        raise
    pool.shutdown()
    return found


def _time_left(done: int, began: float, left: int) -> str:
    if not done or not left:
        return "compiled"
    return f"compiled, about {text.duration((time.monotonic() - began) / done * left)} left"
