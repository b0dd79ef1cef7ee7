"""How much of a grid's training would be shared if its runs that differ in D alone had a common trunk."""

import dataclasses

from moe_jax.config.schema import Config
from moe_jax.errors import UserError
from moe_jax.sweep import jobs
from moe_jax.sweep.jobs import Saving
from moe_jax.sweep.planned_grid import PlannedGrid

DECAY_FRACTION = 0.1  # (ours) of the wsd schedule that a cosine grid is compared with


def trunk_saving(grid: PlannedGrid) -> Saving | None:
    """What trunks save in this grid, under its own `wsd` schedule or an assumed one; None where no runs differ in D
    alone.

    A grid with another schedule is compared with `wsd`: the shortest warm-up of its runs for all, and a decay over the
    last tenth of each D."""
    runs = grid.runs
    if all(run.config.optim.schedule == "wsd" for run in runs):
        found = grid.saving
    else:
        warmup = min(run.config.warmup_steps * run.config.batch_tokens for run in runs)
        try:
            runs = tuple(dataclasses.replace(run, config=_with_wsd(run.config, warmup)) for run in runs)
        except UserError:  # too short for a warm-up and a decay
            return None
        found = jobs.saving(runs)
    return found if found.trunks else None


def _with_wsd(config: Config, warmup_tokens: int) -> Config:
    optim = dataclasses.replace(
        config.optim, schedule="wsd", warmup_tokens=warmup_tokens, warmup_fraction=None, decay_fraction=DECAY_FRACTION
    )
    return dataclasses.replace(config, optim=optim)
