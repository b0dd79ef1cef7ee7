"""How far a plan lies from the runs behind a law."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from moe_jax.flops import FORMULAS
from moe_jax.laws.law import Law
from moe_jax.laws.shapes import Shape


@dataclass(frozen=True)
class Reach:
    """The distance of a plan from the runs behind its law.

    columns: each column outside the range of the runs -> (value, the nearest end of the range). flops_ratio: the plan's
    FLOPs / those of the largest run; None where that run is not known. at_least: the ratio is a lower bound, because
    the largest run is only known to be no larger than the largest N and D together."""

    columns: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    flops_ratio: float | None = None
    at_least: bool = False
    known: bool = True  # False: the law does not say which runs are behind it

    def sentences(self) -> tuple[str, ...]:
        """What to say of it; nothing for a plan within the runs."""
        said = []
        for column, (value, end) in self.columns.items():
            if end > 0 and column != "sparsity":
                above = (
                    f"{_number(value / end)} × the largest"
                    if value > end
                    else f"1/{_number(end / value)} of the smallest"
                )
                said.append(f"{column} {above} in the law's runs")
            else:
                said.append(f"{column} {value:.3g} where the law's runs end at {end:.3g}")
        if self.flops_ratio is not None and self.flops_ratio > 1.5:
            bound = "at least " if self.at_least else ""
            said.append(f"{bound}{_number(self.flops_ratio)} × the largest run behind this law")
        return tuple(said)


def reach(law: Law, values: Mapping[str, float], cost: str, shape: Shape, meant: Mapping[str, str]) -> Reach:
    """The distance of a plan (values by column of results.csv) from the law's runs; meant: what its symbols count."""
    ranges = law.data.range
    beyond = {}
    for symbol, column in meant.items():
        source = law.data.columns.get(symbol, law.form.columns[symbol])
        if source not in ranges:
            continue
        (low, high), value = ranges[source], values[column]
        if value < low * (1 - 1e-9) or value > high * (1 + 1e-9):
            beyond[source] = (value, high if value > high else low)
    ratio, at_least = _times_largest(law, values, cost, shape), False
    if ratio is None and (most := _corner(law, values, cost, shape, meant)) is not None:
        ratio, at_least = values["flops"] / most, True
    return Reach(beyond, ratio, at_least, known=bool(ranges))


def _times_largest(law: Law, values: Mapping[str, float], cost: str, shape: Shape) -> float | None:
    """The plan's FLOPs / those of the law's largest run, by `cost` or else a formula that the law's data had."""
    known = law.data.largest_run
    formula = cost if cost in known else next((formula for formula in FORMULAS if formula in known), None)
    if formula is None:
        return None
    return float(shape.flops_per_token(formula, values)) * values["tokens"] / known[formula]


def _corner(law: Law, values: Mapping[str, float], cost: str, shape: Shape, meant: Mapping[str, str]) -> float | None:
    """FLOPs of a run with the largest N and the largest D of the law's runs; none of them was larger."""
    ends = {s: law.data.range.get(law.data.columns.get(s, law.form.columns[s])) for s in "ND"}
    if None in ends.values():
        return None
    E, K, G = (values[c] for c in ("expansion_rate", "active_rate", "granularity"))
    columns = shape.of_size(meant["N"], ends["N"][1], E, K, G)
    return float(shape.flops_per_token(cost, columns)) * ends["D"][1]


def _number(ratio: float) -> str:
    return f"{ratio:.3g}" if ratio < 100 else f"{ratio:,.0f}"
