"""The runs behind published coefficients, as far as the papers state them: their ranges, constants and largest run.

A set that is not here has runs that could not be verified: nothing is then said of what lies outside them."""

from collections.abc import Mapping
from dataclasses import dataclass, field


@dataclass(frozen=True)
class PublishedRuns:
    """The runs that a published set of coefficients was fitted to."""

    source: str
    range: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # column -> (min, max)
    constants: Mapping[str, float] = field(default_factory=dict)  # columns with one value in all runs
    largest_run: Mapping[str, float] = field(default_factory=dict)  # FLOP formula -> training FLOPs


_STEP = 256 * 2048  # tokens of a batch of krajewski2024, in all grids

# Table 3: 78 runs of d²(8 · 64 + 4) · n_layers parameters, 31,250 to 250,000 steps; the largest is 640 wide, G = 4.
_TABLE_3 = PublishedRuns(
    "Krajewski et al. 2024, Table 3",
    {
        "n_total_nonemb": (135_266_304, 3_652_190_208),
        "tokens": (31_250 * _STEP, 250_000 * _STEP),
        "granularity": (1, 16),
    },
    {"expansion_rate": 64, "active_rate": 1},
    {"flops_krajewski2024": 2.083e19},
)
# Table 7, whose rows are labelled 64× but of E = 16: d²(8 · 16 + 4) · n_layers parameters, 15,625 to 125,000 steps.
_TABLE_7 = PublishedRuns(
    "Krajewski et al. 2024, Table 7",
    {"n_total_nonemb": (34_603_008, 540_672_000), "tokens": (15_625 * _STEP, 125_000 * _STEP), "granularity": (1, 16)},
    {"expansion_rate": 16, "active_rate": 1},
    {"flops_krajewski2024": 5.43e18},
)
# 240 of the 245 points of Hoffmann et al.'s figure that Besiroglu et al. recovered, D = C / 6N.
_CHINCHILLA = PublishedRuns(
    "the 240 runs of Hoffmann et al. 2022 that Besiroglu et al. 2024 recovered",
    {"n_total": (5.733e7, 1.6184e10), "tokens": (8.187e8, 3.1776e11)},
    largest_run={"flops_6nd": 1.2956e22},
)

PUBLISHED_RUNS: Mapping[tuple[str, str], PublishedRuns] = {  # (law, set)
    ("krajewski2024", "E=64"): _TABLE_3,
    ("krajewski2024", "E=64, Table 5"): _TABLE_3,  # less its 20% of lowest loss, which are not listed
    ("krajewski2024", "E=16, Table 8"): _TABLE_7,
    ("krajewski2024_dense", "Table 1"): PublishedRuns(
        "Krajewski et al. 2024, Table 4",
        {"n_active_nonemb": (3_145_728, 84_934_656), "tokens": (31_250 * _STEP, 125_000 * _STEP)},
        largest_run={"flops_krajewski2024": 1.9327e19},
    ),
    ("chinchilla", "hoffmann2022"): _CHINCHILLA,
    ("chinchilla", "besiroglu2024"): _CHINCHILLA,
    ("joint_moe2025", "joint_moe2025"): PublishedRuns(
        "Ludziejewski et al. 2025, appendix E",
        {"n_active": (7.9e7, 2.7e9), "tokens": (5e8, 8e10), "expansion_rate": (1, 32)},
        {"granularity": 1, "active_rate": 1},
    ),
    # S = .98 was held out. N and D are not listed; the largest of their five budgets is.
    ("abnar2025", "abnar2025"): PublishedRuns(
        "Abnar et al. 2025, Table 1 and Fig. 8", {"sparsity": (0, 0.95)}, largest_run={"flops_abnar2025": 1e21}
    ),
}
