"""plan --topology with the real compiler, on a machine without chips: each paper's layer on three kinds, and one cell
of a paper's grid at its size."""

import dataclasses
import json
from concurrent.futures import ThreadPoolExecutor

import pytest

from moe_jax import chips, errors
from moe_jax.cli import plan
from moe_jax.config import config_file
from moe_jax.config.identity import StepShape
from moe_jax.plan import compiles, grid_forecast
from moe_jax.plan.compiles import Compiles
from moe_jax.plan.step_forecast import Target, forecast_step
from moe_jax.sweep.planned_grid import plan_grid

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        grid_forecast.missing_compiler() is not None, reason="needs libtpu: pip install 'moe_jax[plan]'"
    ),
]

REAL = ("configs/krajewski2024.py:table3", "n3p1m-d16b-g1-s0")
# Expert Choice in slots, token choice in slots, dropless token choice. At the papers' sizes a compile takes minutes.
SMALL = (
    ("configs/krajewski2024.py:smoke", "*-g2-*"),
    ("configs/krajewski2025.py:smoke", "*-g8-k1-*"),
    ("configs/abnar2025.py:smoke", "*-e10-*"),
)
TOPOLOGIES = ("v5e:2x2", "v5p:2x2x1", "v6e:2x2")


def first_run(spec: str, name: str):
    file = config_file.load([f"--config={spec}"])
    grid = plan_grid(file, store_required=False)
    return grid.only([name]).runs[0]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("plan")


@pytest.fixture(scope="module")
def found(folder):
    """(config, topology) -> (run, forecast), two compiles at a time."""
    steps, asked = Compiles(folder / "moe_jax" / "plan"), {}
    cells = [(REAL, "v5e:4x4"), *((cell, topology) for cell in SMALL for topology in TOPOLOGIES)]
    with ThreadPoolExecutor(2) as pool:
        for (spec, name), topology in cells:
            run = first_run(spec, name)
            shape = StepShape(run.config, run.counts.vocab_size)
            target = Target(topology, 1, False)
            future = pool.submit(forecast_step, shape, run.counts.n_total, target, steps.get)
            asked[spec, topology] = run, future
    return {key: (run, future.result()) for key, (run, future) in asked.items()}


def test_each_papers_layer_compiles_for_each_chip(found):
    assert len(found) == 10
    for key, (run, seen) in found.items():
        c = seen.compiled
        assert c is not None, (key, seen.reason)
        assert seen.fits and c.bytes_per_device <= c.hbm_bytes and c.unknown_loops == 0
        # What it holds at least: its share of the parameters and their two moments.
        assert c.bytes_per_device > 12 * run.counts.n_total / seen.topology.n_devices


def test_the_products_of_a_papers_cell_are_what_its_counts_say(found):
    run, seen = found[REAL[0], "v5e:4x4"]
    useful = run.counts.train_flops / run.counts.steps / 16
    # Expert Choice takes as many tokens as there are; of the scores, which count whole, a part is not computed.
    assert 0.9 < seen.compiled.matmul_flops / useful < 1.05


def test_rooflines_are_the_counts_over_the_published_rates(found):
    for (_, topology), (run, seen) in found.items():
        step_flops, n = run.counts.train_flops / run.counts.steps, seen.topology.n_devices
        seconds = seen.columns(step_flops)["seconds"]
        chip = chips.CHIPS[topology.partition(":")[0]]
        assert seconds["compute"] == pytest.approx(step_flops / n / chip.peak_flops)
        assert seconds["hbm"] == pytest.approx(seen.compiled.hbm_traffic / chip.hbm_bandwidth)
        # All of the state is read and written once a step, whatever else is.
        assert seen.compiled.hbm_traffic > 2 * 12 * run.counts.n_total / n
        assert seconds["ici"] > 0 and seconds["dcn"] == 0


def test_the_verb_reads_what_is_kept(found, folder, tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("XDG_CACHE_HOME", str(folder))

    def never(self, request):
        raise AssertionError("compiled a second time")

    monkeypatch.setattr(compiles._Children, "compile", never)
    args = [f"--config={REAL[0]}", f"--only={REAL[1]}", "--topology=v5e:4x4"]
    assert plan.main([*args, f"--out={tmp_path}/plan.json", "--price_per_chip_hour=1"]) == errors.DONE
    (row,) = json.loads((tmp_path / "plan.json").read_text())["runs"]
    assert row["compiled"] == dataclasses.asdict(found[REAL[0], "v5e:4x4"][1].compiled)
    assert row["price"] == pytest.approx(row["chip_hours"]) and "1 of 1 run fit" in capsys.readouterr().out
