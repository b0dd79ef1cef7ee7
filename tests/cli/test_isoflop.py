"""Iso-FLOP fits from the shell: isoflop writes them, optimum asks them, predict refuses them."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.cli import collect, command, fit, isoflop, optimum, predict
from moe_jax.laws.isoflop import budgets
from tests import synthetic_sweep
from tests.hand_edits import sealed_text
from tests.planted_laws import budgets_of, planted_surface
from tests.reference import REFERENCE, needs_reference

BUDGETS = [3e19, 1e20, 1e21]


def call(verb, *flags):
    return command.run(verb.main, [str(f) for f in flags])


@pytest.fixture
def dense_runs(tmp_path):
    """Runs about the optimum of each budget; FLOPs off by what whole steps make them."""
    law = laws.published("chinchilla", "besiroglu2024")
    N, D, C, loss = budgets_of(law, BUDGETS, np.geomspace(0.5, 2, 7), noise=1e-4)
    C = C * (1 + 0.02 * np.sin(np.arange(len(C))))
    path = tmp_path / "results.csv"
    pd.DataFrame({"n_total": N, "tokens": D, "train_flops": C, "eval_loss": loss}).to_csv(path, index=False)
    return path


@pytest.fixture
def sparse_runs(tmp_path):
    N, S, loss = planted_surface(noise=0.002)
    parts = [
        pd.DataFrame({"n_total": N, "sparsity": S, "flops_abnar2025": C, "eval_loss": loss - 0.1 * i})
        for i, C in enumerate(BUDGETS[:2])
    ]
    path = tmp_path / "results.csv"
    pd.concat(parts).to_csv(path, index=False)
    return path


def test_parabolas_and_their_optimum(dense_runs, capsys):
    figures = dense_runs.parent / "figures"
    flags = ["--results", dense_runs, "--bootstrap", 50, "--figures", figures]
    assert call(isoflop, *flags) == errors.DONE
    out = dense_runs.parent / "isoflop_parabola.json"
    assert "N* = " in (said := capsys.readouterr().out) and f"isoflop: {out}" in said
    assert (figures / "isoflop_parabola.png").stat().st_size > 10_000
    found = laws.isoflop.load(out)
    assert found.minima.exponent == pytest.approx(0.3658 / (0.3478 + 0.3658), abs=0.01)
    assert len(found.minima.samples) == 50

    assert call(optimum, "--law", out, "--flops", "1e20,1e24") == errors.DONE
    with open(dense_runs.parent / "optimum.csv", newline="") as f:
        near, far = csv.DictReader(f)
    exact = laws.Planner(laws.published("chinchilla", "besiroglu2024")).best(1e20).values
    assert float(near["N"]) == pytest.approx(exact["n_total"], rel=0.05)
    assert float(near["tokens"]) == pytest.approx(exact["tokens"], rel=0.05)
    assert float(near["N_low"]) < float(near["N"]) < float(near["N_high"])
    assert (near["outside"], far["outside"]) == ("", "flops")


def test_surfaces_and_their_optimum(sparse_runs, capsys):
    figures = sparse_runs.parent / "figures"
    flags = ["--results", sparse_runs, "--method", "surface", "--bootstrap", 20, "--figures", figures]
    assert call(isoflop, *flags) == errors.DONE
    assert (figures / "isoflop_surface.png").stat().st_size > 10_000
    out = sparse_runs.parent / "isoflop_surface.json"
    found = laws.isoflop.load(out)
    assert list(found.surfaces) == pytest.approx(BUDGETS[:2])
    N, S, truth = planted_surface(noise=0)
    first = found.surface(3.1e19)[1]
    assert np.abs(first.loss(N, S) - truth).max() < 0.005
    assert first.best()["S"][0] == S[truth.argmin()] and first.best()["at_edge"] == ()
    assert first.best_sparsity(1e8)[0]["S"][0] == S[N == 1e8][truth[N == 1e8].argmin()]

    assert call(optimum, "--law", out, "--flops", "1e20") == errors.DONE
    with open(sparse_runs.parent / "optimum.csv", newline="") as f:
        lowest, *slices = csv.DictReader(f)
    assert len(slices) == 7 and float(lowest["S"]) == S[truth.argmin()]
    capsys.readouterr()
    assert call(optimum, "--law", out, "--flops", "1e22") == errors.BAD_INPUT
    assert "a surface holds at its own budget: 3e+19, 1e+20 FLOPs, not 1e+22" in capsys.readouterr().err


@needs_reference
def test_approach_2_on_hoffmann_s_points_in_one_command(tmp_path, capsys):
    """80% within (.462, .534) in the paper, whose runs are not all of a budget."""
    flop, size = "`Training FLOP`", "`Model Size`"
    columns = f"N={size},C={flop},D={flop}/(6*{size})"
    named = "6e18,1e19,3e19,6e19,1e20,3e20,6e20,1e21,3e21"
    flags = ["--results", REFERENCE / "chinchilla_epoch.csv", "--loss", "loss", "--columns", columns]
    flags += ["--bootstrap", 100, "--out", tmp_path / "p.json"]
    assert call(isoflop, *flags, "--budgets", named, "--tolerance", 0.15) == errors.DONE
    assert "88 runs of 245 left out: not within 15% of a budget" in capsys.readouterr().out
    assert 0.462 < laws.isoflop.load(tmp_path / "p.json").minima.exponent < 0.534
    assert call(isoflop, *flags) == errors.BAD_INPUT
    assert "--budgets names them" in capsys.readouterr().err


def test_runs_of_like_flops_share_a_budget():
    flops = np.array([1.02e20, 3e19, 0.98e20, 1e20, 7e20])
    groups = budgets.group(flops, None)
    assert [g.tolist() for g in groups.values()] == [[1], [0, 2, 3], [4]]
    assert budgets.group(flops, [1e20], 0.01) == {1e20: np.array([3])}
    with pytest.raises(errors.UserError, match="lie too close"):
        budgets.group(np.geomspace(1e19, 1e20, 60), None)


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--method", "envelope", "--budgets", "1e20"], "--budgets (budgets) is not for it"),
        (["--bootstrap", 10**10], "--bootstrap is 10,000,000,000: at most 1,000,000"),
        (["--bootstrap", -1], "samples must not be negative"),
        (["--seed=-1"], "the bootstrap's seed is -1, must not be negative"),
        (["--budgets", "1e20,x"], "--budgets: 'x' is not a number"),
        (["--budgets", "-1"], "a budget of -1 FLOPs, must be above zero"),
        (["--tolerance", 2], "a tolerance of 2 of a budget, must be inside (0, 1)"),
        (["--budgets", "5e25"], "no run is within 10% of a budget of 5e+25 FLOPs"),
        (["--columns", "C=flops"], "--columns: there is no column 'flops'"),
    ],
    ids=lambda v: " ".join(map(str, v)) if isinstance(v, list) else "",
)
def test_what_isoflop_refuses(dense_runs, capsys, flags, sentence):
    assert call(isoflop, "--results", dense_runs, *flags) == errors.BAD_INPUT
    assert sentence in capsys.readouterr().err


def test_rows_times_samples_are_bounded_as_in_a_fit(dense_runs, capsys, monkeypatch):
    monkeypatch.setattr("moe_jax.laws.limits.COUNTED", 1000)
    assert call(isoflop, "--results", dense_runs, "--bootstrap", 48) == errors.BAD_INPUT
    assert "48 bootstrap samples of 21 rows are 1,008 draws, and a fit takes at most 1,000" in capsys.readouterr().err
    assert call(isoflop, "--results", dense_runs, "--bootstrap", 47) == errors.DONE


def test_what_iso_flop_fits_cannot_do(dense_runs, capsys):
    call(isoflop, "--results", dense_runs, "--bootstrap", 0)
    out = dense_runs.parent / "isoflop_parabola.json"
    assert call(predict, "--law", out, "--config=configs/smoke.py") == errors.BAD_INPUT
    assert "holds iso-FLOP fits, which have no formula" in capsys.readouterr().err
    assert call(optimum, "--law", out, "--flops", "1e20", "--tokens", "1e9") == errors.BAD_INPUT
    assert "--tokens means nothing for isoflop_minima" in capsys.readouterr().err
    assert call(fit, "--results", dense_runs, "--law", "isoflop_parabolas") == errors.BAD_INPUT
    assert "there is no law 'isoflop_parabolas'" in capsys.readouterr().err
    out.write_text(sealed_text(json.loads(out.read_text().replace("power_laws", "powers"))))
    assert call(optimum, "--law", out, "--flops", "1e20") == errors.BAD_INPUT
    assert "is damaged (KeyError: 'power_laws')" in capsys.readouterr().err


@pytest.mark.parametrize("method", ["parabola", "surface"])
@pytest.mark.parametrize("wrong", [7, "x", None, [], {}, [[1]], [{"flops": 1}], True, -1])
def test_a_file_with_a_wrong_value_is_refused_or_harmless(request, method, wrong, capsys):
    """Whatever value stands for another, optimum says that the file is damaged or gives numbers: no traceback."""
    runs = request.getfixturevalue("dense_runs" if method == "parabola" else "sparse_runs")
    call(isoflop, "--results", runs, "--method", method, "--bootstrap", 2)
    out = runs.parent / f"isoflop_{method}.json"
    sound = json.loads(out.read_text())
    places = [(sound, k) for k in sound if k not in ("sha256", "law")]
    inner = sound["minima"] if method == "parabola" else sound["surfaces"][0]
    places += [(inner, k) for k in inner]
    refused = 0
    for group, key in places:
        kept, group[key] = group[key], wrong
        out.write_text(sealed_text(sound))
        code = call(optimum, "--law", out, "--flops", "1e20")
        said = capsys.readouterr().err
        assert code == errors.DONE or (code == errors.BAD_INPUT and said.count("\n") == 1), (key, said)
        refused += code == errors.BAD_INPUT
        group[key] = kept
    assert refused > len(places) / 2


@pytest.mark.parametrize("method", ["window", "cubic", "akima", "envelope"])
def test_the_other_methods_find_the_same_optima(dense_runs, method, capsys):
    figures = dense_runs.parent / "figures"
    flags = ["--results", dense_runs, "--method", method, "--bootstrap", 20, "--figures", figures]
    assert call(isoflop, *flags) == errors.DONE
    assert {p.name for p in figures.iterdir()} == {f"isoflop_{method}.{kind}" for kind in ("png", "svg")}
    out = dense_runs.parent / f"isoflop_{method}.json"
    assert call(optimum, "--law", out, "--flops", "1e20") == errors.DONE
    with open(dense_runs.parent / "optimum.csv", newline="") as f:
        (row,) = csv.DictReader(f)
    exact = laws.Planner(laws.published("chinchilla", "besiroglu2024")).best(1e20).values
    assert float(row["N"]) == pytest.approx(exact["n_total"], rel=0.25 if method == "envelope" else 0.05)


def test_an_envelope_takes_the_training_curves_of_a_sweep(tmp_path, capsys):
    """From W: the runs' metrics.jsonl, and a run without one is counted. From a table alone: final losses."""
    work, planned = synthetic_sweep.make(tmp_path, synthetic_sweep.cells(widths=(16, 32, 64, 128), granularities=(1,)))
    for run in planned:
        synthetic_sweep.finish(work, run)
    work.run_dir(planned[0].name).metrics.unlink()
    assert call(collect, "--workdir", tmp_path) == errors.DONE
    capsys.readouterr()
    assert call(isoflop, "--workdir", tmp_path, "--method", "envelope", "--bootstrap", 5) == errors.DONE
    said = capsys.readouterr().out
    assert "the envelope is that of training losses" in said and "1 run of 12 without a training curve" in said
    curves = laws.isoflop.load(tmp_path / "isoflop_envelope.json").minima
    sizes = {run.counts.n_total for run in planned}
    assert len(curves.table) > 12 and {*curves.table["N"]} <= sizes
    flags = ["--results", tmp_path / "results.csv", "--method", "envelope", "--bootstrap", 5]
    assert call(isoflop, *flags) == errors.DONE
    assert "the envelope is that of final losses" in capsys.readouterr().out
    assert len(laws.isoflop.load(tmp_path / "isoflop_envelope.json").minima.table) <= 12
