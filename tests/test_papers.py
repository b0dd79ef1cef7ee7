"""The papers' grids are the papers': their numbers of runs, tokens and FLOPs."""

import pytest

from moe_jax import configfile, counts, grid


def runs_of(spec):
    file = configfile.load([f"--config={spec}"])
    return grid.expand(file.base.to_dict(), file.cells)


@pytest.mark.parametrize(("table", "number"), [("table3", 78), ("table4", 22), ("table7", 68)])
def test_krajewski2024_has_the_papers_runs(table, number):
    runs = runs_of(f"configs/krajewski2024.py:{table}")
    assert len(runs) == number
    assert all(run.config.train.tokens == run.config.steps * run.config.batch_tokens for run in runs)
    assert all((run.config.moe is None) == (table == "table4") for run in runs)


def test_krajewski2024_table3_costs_what_the_paper_spent():
    runs = runs_of("configs/krajewski2024.py:table3")
    assert sum(run.config.train.tokens for run in runs) == pytest.approx(3.16e12, rel=2e-3)
    flops = sum(counts.count_flops(run.config, 50_257).flops_krajewski2024 for run in runs)
    assert flops == pytest.approx(4.04e20, rel=2e-3)
    assert sum(
        counts.count_flops(r.config, 50_257).flops_krajewski2024 for r in runs_of("configs/krajewski2024.py:table4")
    ) == (pytest.approx(1.06e20, rel=5e-3))
    sizes = {counts.count_parameters(run.config, 50_257).n_total_nonemb for run in runs}
    assert sizes == {135_266_304, 304_349_184, 541_065_216, 1_082_130_432, 2_113_536_000, 3_652_190_208}
    assert {counts.capacity(run.config) for run in runs} == {4}  # sequences an expert takes at a position


def test_krajewski2024_names_carry_the_axes():
    names = [run.name for run in runs_of("configs/krajewski2024.py:table3")]
    assert names[0] == "n3p1m-d16b-g1-s0" and "n85m-d33b-g4-s0" in names
