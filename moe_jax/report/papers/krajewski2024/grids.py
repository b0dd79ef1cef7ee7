"""Tables 3, 4 and 7: the paper's grids, as configs/krajewski2024.py builds them."""

from collections.abc import Mapping

from moe_jax.config import config_file, counts, grid, packaged
from moe_jax.report.elements import Table
from moe_jax.report.papers.item import Item
from moe_jax.text import short

_VOCAB_SIZE = 50_257


def tables_3_4_7(printed: Mapping) -> Item:
    """Runs, sizes, tokens and FLOPs of each grid."""
    rows = []
    for name, kind in (("table3", "MoE, E = 64"), ("table4", "dense"), ("table7", "MoE, E = 16")):
        file = config_file.load([f"--config={packaged.folder() / 'krajewski2024.py'}:{name}"])
        runs = [run.config for run in grid.expand(file.base.to_dict(), file.cells)]
        flops = [counts.count_flops(config, _VOCAB_SIZE) for config in runs]
        sizes = sorted({counts.count_parameters(config, _VOCAB_SIZE).n_total_nonemb for config in runs})
        rows.append(
            [
                f"Table {name[-1]}: {kind}", str(printed["grids"][name]["runs"]), str(len(runs)),
                f"{short(sizes[0])} … {short(sizes[-1])}", f"{sum(f.tokens for f in flops):.3g}",
                f"{sum(f.flops_krajewski2024 for f in flops):.3g}",
            ]
        )  # fmt: skip
    caption = "As configs/krajewski2024.py builds them; FLOPs by the paper's formula, which leaves out the unembedding."
    headings = ("", ">runs, printed", ">runs, config", ">N", ">tokens, all", ">FLOPs, all")
    return Item("Tables 3, 4 and 7: the grids", [Table(headings, rows, caption=caption)])
