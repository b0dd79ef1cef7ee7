"""plan --topology with the real compiler: one cell of each paper on three kinds of chips, on a machine without any."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from moe_jax import chips, compiles, configfile, errors, forecasts, outlook, plan
from moe_jax.compiles import Compiles
from moe_jax.forecast import Target, forecast
from moe_jax.step_shapes import StepShape

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(forecasts.missing_compiler() is not None, reason="needs libtpu: pip install 'moe_jax[plan]'"),
]

# Layers are scanned, so a compile costs the same at any depth; widths and batches are the papers'.
CELLS = {
    "krajewski2024": ("configs/krajewski2024.py:table3", "n3p1m-d16b-g1-s0", "--config.model.vocabulary_size=50257"),
    "krajewski2025": ("configs/krajewski2025.py:11b", "n1p6b-d100b-g8-k1-s0", "--config.mesh.expert=8"),
    "abnar2025": ("configs/abnar2025.py:1e20", "n34m-d219b-g1-e10-k1-s0", "--config.mesh.expert=1"),
}
TOPOLOGIES = ("v5e:4x4", "v5p:2x2x4", "v6e:4x4")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plan")


@pytest.fixture(scope="module")
def found(folder):
    """(paper, topology) -> (run, forecast), two compiles at a time."""
    steps, asked = Compiles(folder / "moe_jax" / "plan"), {}
    with ThreadPoolExecutor(2) as pool:
        for paper, (spec, name, flag) in CELLS.items():
            grid = outlook.of(configfile.load([f"--config={spec}", flag]))
            (run,) = grid.only([name]).runs
            shape = StepShape(run.config, run.counts["vocabulary_size"])
            for topology in TOPOLOGIES:
                target = Target(topology, 1, False)
                future = pool.submit(forecast, shape, run.counts["n_total"], target, steps.get)
                asked[paper, topology] = run, future
    return {key: (run, future.result()) for key, (run, future) in asked.items()}


def test_each_paper_compiles_for_each_chip(found):
    for (paper, topology), (run, seen) in found.items():
        c = seen.compiled
        assert c is not None, (paper, topology, seen.reason)
        assert c.fits == (c.bytes_per_device <= c.hbm_bytes)
        # What it holds at least: its share of the parameters and their two moments.
        assert c.bytes_per_device > 12 * run.counts["n_total"] / 16
        # The products of the program are those that counts.py counts, and what capacity and remat add.
        useful = run.counts["train_flops"] / run.counts["steps"] / 16
        assert 0.8 < c.matmul_flops / useful < 2.5, (paper, topology)
    assert found["krajewski2024", "v5e:4x4"][1].fits
    assert not found["krajewski2025", "v5e:4x4"][1].fits and found["krajewski2025", "v5p:2x2x4"][1].fits


def test_rooflines_are_the_counts_over_the_published_rates(found):
    for (_, topology), (run, seen) in found.items():
        step_flops = run.counts["train_flops"] / run.counts["steps"]
        seconds = seen.columns(step_flops)["seconds"]
        chip = chips.CHIPS[topology.partition(":")[0]]
        assert seconds["compute"] == pytest.approx(step_flops / 16 / chip.peak_flops)
        assert seconds["hbm"] == pytest.approx(seen.compiled.hbm_traffic / chip.hbm_bandwidth)
        # All of the state is read and written once a step, whatever else is.
        assert seen.compiled.hbm_traffic > 2 * 12 * run.counts["n_total"] / 16
        assert seconds["ici"] > 0 and seconds["dcn"] == 0


def test_the_verb_reads_what_is_kept(found, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))

    def never(self, request):
        raise AssertionError("compiled a second time")

    monkeypatch.setattr(compiles._Children, "compile", never)
    spec, name, flag = CELLS["krajewski2024"]
    args = [f"--config={spec}", f"--only={name}", flag, "--topology=v5e:4x4", f"--out={tmp_path}/plan.json"]
    assert plan.main([*args, "--price_per_chip_hour=1"]) == errors.DONE
    (row,) = json.loads((tmp_path / "plan.json").read_text())["runs"]
    assert row["compiled"] == dataclasses.asdict(found["krajewski2024", "v5e:4x4"][1].compiled)
    assert row["price"] == pytest.approx(row["chip_hours"]) and "1 of 1 run fit" in capsys.readouterr().out
