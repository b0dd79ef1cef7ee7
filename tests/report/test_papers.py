"""The papers' grids are the papers': their numbers of runs, tokens and FLOPs."""

import csv

import pytest

from moe_jax.config import config_file, counts
from moe_jax.sweep import jobs
from moe_jax.sweep.manifest import StoreIdentity, plan_runs
from tests.reference import REFERENCE


def runs_of(spec):
    file = config_file.load([f"--config={spec}"])
    return file.runs()


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


@pytest.mark.skipif(
    not REFERENCE.exists(), reason=f"third-party losses are not at {REFERENCE}; MOE_JAX_REFERENCE says where they are"
)
def test_krajewski2024_short_has_the_runs_whose_losses_are_known():
    """Those of the authors' plots that the paper's table leaves out."""
    fields = ("d_model", "n_blocks", "n_steps", "D_tokens", "G", "N_total_nonemb", "E")
    with open(REFERENCE / "finegrained_moe_losses_recovered.csv") as f:
        known = {tuple(int(r[field]) for field in fields) for r in csv.DictReader(f) if r["in_paper_table3"] == "0"}
    ours = set()
    for run in runs_of("configs/krajewski2024.py:short"):
        c, N = run.config, counts.count_parameters(run.config, 50_257).n_total_nonemb
        shape = (c.model.d_model, c.model.n_layers, c.steps, c.train.tokens)
        ours.add((*shape, c.moe.granularity, N, c.moe.expansion_rate))
    assert ours == known and len(known) == 52


def test_krajewski2024_wsd_is_table3_with_shared_steps():
    alone, shared = (runs_of(f"configs/krajewski2024.py:{variant}") for variant in ("table3", "wsd"))
    assert [run.name for run in shared] == [run.name for run in alone]
    saved = jobs.saving(plan_runs(shared, StoreIdentity("stores/x", "a" * 64, 50_257)))
    assert saved.trunks == 25  # the 28 shapes less the three of which there is one D
    assert saved.tokens_alone == pytest.approx(3.16e12, rel=2e-3) and saved.tokens == pytest.approx(2.1e12, rel=2e-3)


def test_abnar2025_spends_its_budgets_and_says_what_it_leaves_out():
    file = config_file.load(["--config=configs/abnar2025.py:all"])
    runs = file.runs()
    assert len(file.cells) == 5 * 7 * 5 and len(runs) == 168
    (refused,) = file.refused
    assert refused.startswith("left out of the grid: 7 cells, model.d_model=512") and "RedPajama" in refused
    for cell, run in zip((c for c in file.cells if c.refused is None), runs, strict=True):
        assert cell.overrides["train.tokens"] == run.config.train.tokens
        spent = counts.count_flops(run.config, 50_432).flops_abnar2025
        assert min(abs(spent / budget - 1) for budget in (3e19, 6e19, 1e20, 3e20, 1e21)) < 1e-3


def test_lr_sweep_names_its_rates_and_the_rule_gives_the_authors_rate():
    runs = runs_of("configs/lr_sweep.py")
    assert len(runs) == 40 and runs[0].name == "n3p1m-d4p1b-g1-lr5e5-s0"
    (smallest, *_), ruled = runs, runs_of("configs/lr_sweep.py:rule")
    assert len(ruled) == 8 and {run.config.model for run in ruled} == {run.config.model for run in runs}
    # exp(8.39 − 0.81 ln 3,145,728 − 0.25 ln 64), by hand
    assert ruled[0].config.optim.learning_rate == pytest.approx(8.5e-3, rel=1e-6)
    assert smallest.config.train.tokens == ruled[0].config.train.tokens == 4_095_737_856


@pytest.mark.parametrize("name", ["krajewski2024", "krajewski2025", "abnar2025", "lr_sweep"])
def test_every_papers_config_has_a_smoke_form(name):
    assert len(runs_of(f"configs/{name}.py:smoke")) == 8
