"""The table of `moe-jax optimum`, and the rows of optimum.csv."""

import math
from collections.abc import Sequence

from moe_jax import text
from moe_jax.cli import tables
from moe_jax.cli.optimum_plans import Planned

_SHOWN = (
    ("loss", "loss"),
    ("n_total", "total"),
    ("n_active_nonemb", "active, no emb."),
    ("tokens", "tokens"),
    ("granularity", "G"),
    ("active_rate", "K"),
    ("expansion_rate", "E"),
)
_NEEDS = {"dense": "dense", "granularity_1": "G = 1"}


def show(planner, planned: Sequence[Planned], notes: Sequence[str] = ()) -> None:
    """Prints the law, its plans, and what weakens them."""
    law, timed = planner.law, planned[0].budget.unit != "flops"
    print(f"{law.name}: L = {law.form.formula}")
    print(f"{'; '.join(_what_counts(planner))}")
    tables.show(tables.Table(_heads(planned, _columns(law, planned), timed), _cells(planned, law, timed)))
    if timed:
        print("- speed-up: how many times the chip-hours that model needs for the same loss")
    for sentence in (*notes, *_doubts(planner, planned)):
        print(f"- {text.one_line(sentence)}")


def _columns(law, planned: Sequence[Planned]) -> list[tuple[str, str]]:
    """The columns of plans that say something under this law."""
    several = {p.plan.values["active_rate"] for p in planned} != {1}
    chosen = "G" in law.form.symbols or "top_k" in law.form.columns.values()
    idle = {"granularity": not chosen, "active_rate": not several}
    return [(column, head) for column, head in _SHOWN if not idle.get(column, False)]


def _heads(planned: Sequence[Planned], columns: Sequence[tuple[str, str]], timed: bool) -> list[str]:
    needs = [_NEEDS[k] for k in planned[0].needs]
    budget = {"flops": [">FLOPs"], "chip_hours": [">chip-hours"], "dollars": [">dollars", ">chip-hours"]}
    heads = [*budget[planned[0].budget.unit], *(["chosen by"] if timed else []), *(f">{head}" for _, head in columns)]
    if timed:
        return [*heads, ">FLOPs", *(f">speed-up over {n}" for n in needs), "remark"]
    return [*heads, *(f">FLOPs, {n}" for n in needs), "remark"]


def _cells(planned: Sequence[Planned], law, timed: bool) -> list[tuple[str, ...]]:
    rows = []
    for p in planned:
        values, intervals = p.plan.values, p.plan.intervals
        cells = [f"{p.budget.asked:g}"] if p.budget.unit == "dollars" else []
        cells += [f"{values['chip_seconds'] / 3600:.4g}", p.chosen_by] if timed else [f"{values['flops']:.3g}"]
        for column, _ in _columns(law, planned):
            write = (lambda v: f"{v:.3f}") if column == "loss" else text.short
            cells.append(_with_interval(write, values[column], intervals.get(column)))
        cells += [f"{values['flops']:.3g}"] if timed else []
        cells += [_with_interval(_times, value, interval) for value, interval in p.needs.values()]
        rows.append((*cells, "; ".join(_remarks(p))))
    return rows


def _with_interval(write, value: float, interval) -> str:
    return write(value) + (f" ({write(interval[0])}–{write(interval[1])})" if interval else "")


def _remarks(p: Planned) -> list[str]:
    beyond = p.plan.reach.sentences()
    remarks = [f"outside the fit: {', '.join(beyond)}"] if beyond else []
    return remarks + ([f"at the limit: {', '.join(p.plan.at_limit)}"] if p.plan.at_limit else [])


def _times(ratio: float) -> str:
    return f"{ratio:.3g}×" if math.isfinite(ratio) else "never"


def _what_counts(planner) -> list[str]:
    """What N and FLOPs count, and which published coefficients these are."""
    said = [f"N is {planner.meant['N']}", f"FLOPs are {planner.cost}"]
    law = planner.law
    if (where := law.published_set) is not None:
        others = [f"--law='{law.name}:{other}'" for other in law.form.published if other != where]
        said.append(f"published coefficients {where!r}" + (f" (others: {', '.join(others)})" if others else ""))
    return said


def _doubts(planner, planned: Sequence[Planned]) -> list[str]:
    from moe_jax.laws.choices import data_range

    law, said = planner.law, []
    for column in ("expansion_rate", "active_rate"):
        unknown = data_range(law, column) is None and not {"E", "S", "K"} & set(law.form.symbols)
        if unknown and any(p.plan.values[column] != 1 for p in planned):
            said.append(f"the data of {law.name} do not say their {column}: whether it holds for this one is not known")
    if unidentified := law.identifiability.unidentified:
        said.append(f"not identified by its data: {', '.join(unidentified)}; the intervals include that")
    if not law.data.range:
        said.append(f"which runs are behind {law.name} is not known here, so what lies outside them is not marked")
    return said


def rows(planned: Sequence[Planned]) -> list[dict]:
    """Rows of optimum.csv."""
    found = []
    for p in planned:
        timed = p.budget.unit != "flops"
        row = {p.budget.unit: p.budget.asked, "chosen_by": p.chosen_by} if timed else {}
        row |= {k: v for k, v in p.plan.values.items() if k != "chip_seconds"}
        if timed:
            row["chip_hours_used"] = p.plan.values["chip_seconds"] / 3600
        bounds = {k: p.plan.intervals.get(k) or (math.nan, math.nan) for k in _with_bounds(planned)}
        for k, (low, high) in bounds.items():
            row |= {f"{k}_low": low, f"{k}_high": high}
        for k, (value, interval) in p.needs.items():
            name = f"speedup_over_{k}" if timed else f"flops_ratio_{k}"
            row[name] = value
            if interval:
                row |= {f"{name}_low": interval[0], f"{name}_high": interval[1]}
        ratio = p.plan.reach.flops_ratio
        row["times_largest_run"] = "" if ratio is None else ratio
        found.append(row | {"outside": " ".join(p.plan.outside), "at_limit": "; ".join(p.plan.at_limit)})
    return found


def _with_bounds(planned: Sequence[Planned]) -> list[str]:
    """The columns with an interval in any plan: plans by FLOPs beside those by the clock have none."""
    return list(dict.fromkeys(k for p in planned for k in p.plan.intervals if k != "chip_seconds"))
