"""The plans of `moe-jax optimum`: by FLOPs, or by the clock with the choice by FLOPs beside it; what others need."""

import argparse
import dataclasses
from collections.abc import Sequence
from dataclasses import replace

from moe_jax.cli import speeds
from moe_jax.cli.optimum_flags import Budget
from moe_jax.errors import UserError

Ratio = tuple[float, tuple[float, float] | None]


@dataclasses.dataclass(frozen=True)
class Planned:
    """A plan for a budget. needs: "dense" and "granularity_1" -> how many times the budget they need for its loss."""

    budget: Budget
    plan: object  # laws.Plan
    needs: dict[str, Ratio]
    chosen_by: str = "FLOPs"  # or "wall clock"


def by_flops(planner, dense, budgets: Sequence[Budget]) -> list[Planned]:
    """A plan a budget."""
    plans = [(budget, planner.best(budget.planned)) for budget in budgets]
    return [_checked(Planned(budget, plan, _needs(planner, plan, dense))) for budget, plan in plans]


def by_clock(planner, dense, budgets: Sequence[Budget], flags: argparse.Namespace) -> tuple[list[Planned], list[str]]:
    """Two plans a budget, the best by the clock and the best by FLOPs that takes as long, and sentences on the speeds.

    Raises UserError for speeds that cannot be read."""
    from moe_jax.laws import wall_clock

    speed, said = speeds.read(flags.speeds, flags.chips)
    planner, limited = _measured_granularities(planner, speed, flags)
    clock = replace(planner, speed=speed)
    found = []
    for budget in budgets:
        for chosen_by in ("wall clock", "FLOPs"):
            timed = chosen_by == "wall clock"
            plan = clock.best(budget.planned) if timed else wall_clock.best_by_flops(clock, budget.planned)
            found.append(_checked(Planned(budget, plan, _needs(clock, plan, dense), chosen_by)))
    sentences = [said, *limited, *_unmeasured(speed, [p.plan for p in found])]
    for name, column in (("dense model", "expansion_rate"), ("model with G = 1", "granularity")):
        if not speed.has(column, 1):
            sentences.append(f"no {name} is among the speeds: what it needs is left out")
    return found, sentences


def _measured_granularities(planner, speed, flags: argparse.Namespace) -> tuple[object, list[str]]:
    """The planner with the granularities that the speeds cover, unless --granularity names some, and a sentence.

    Finer experts are slower: at the speed of the finest measured, those beyond would look better than they are."""
    low, high = speed.range("granularity")
    tried = sorted(set(planner.experts.G.tolist()))
    kept = [G for G in tried if low <= G <= high]
    if flags.granularity or "G" not in planner.law.form.symbols or not kept or kept == tried:
        return planner, []
    said = f"G is chosen from {', '.join(f'{G:g}' for G in kept)}, which the speeds cover; --granularity names others"
    return replace(planner, choices=replace(planner.choices, granularities=kept)), [said]


def _unmeasured(speed, plans) -> list[str]:
    beyond = sorted({column for plan in plans for column in speed.outside(plan.values)})
    if not beyond:
        return []
    return [f"plans lie outside the measured {', '.join(beyond)}: there the speed at the edge is taken"]


def _needs(planner, plan, dense) -> dict[str, Ratio]:
    """What a dense model, and the same mixture with G = 1, need for the plan's loss, in budgets of the plan.

    Both within the plan's limits; inf where the loss is never reached. Under a speed only those that it has."""
    from moe_jax.laws import DENSE, Choices

    speed, others = planner.speed, {}
    if (dense is not None or {"E", "S"} & set(planner.law.form.symbols)) and (
        speed is None or speed.has("expansion_rate", 1)
    ):
        law = dense or planner.law
        others["dense"] = replace(planner, law=law, choices=DENSE, counts=planner.counts if law is planner.law else {})
    if "G" in planner.law.form.symbols and (speed is None or speed.has("granularity", 1)):
        E, K = plan.values["expansion_rate"], plan.values["active_rate"]
        coarse = Choices(granularities=(1,), expansion_rates=(E,), active_rate=K)
        others["granularity_1"] = replace(planner, choices=coarse)
    return {name: planner.compute_ratio(plan, other) for name, other in others.items()}


def _checked(planned: Planned) -> Planned:
    if planned.plan.impossible:
        unit = planned.budget.unit.replace("_", "-").replace("flops", "FLOPs")
        raise UserError(f"the best plan for {planned.budget.asked:.3g} {unit} has {planned.plan.impossible}")
    return planned
