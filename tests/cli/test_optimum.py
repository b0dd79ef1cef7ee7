"""The optimum and predict verbs: tables, files, sentences."""

import csv
import math

import pytest

from moe_jax import errors, laws
from moe_jax.cli import command, optimum, predict
from tests.fit_verb import call as call_fit
from tests.fit_verb import runs


def read(path):
    with open(path, newline="") as f:
        return list(csv.DictReader(f))


def test_optimum_of_a_published_law(capsys):
    flags = ["--law", "krajewski2024", "--flops", "1e18,1e20", "--dense", "krajewski2024_dense"]
    assert command.run(optimum.main, flags) == errors.DONE
    said = capsys.readouterr().out
    assert "15.1×" in said and "18.3×" in said and "1.89×" in said and "optimum:" not in said


def test_optimum_of_a_fit_goes_beside_its_law(tmp_path, capsys):
    call_fit(tmp_path, runs())
    assert command.run(optimum.main, ["--law", str(tmp_path / "law.json"), "--flops", "1e19,1e24"]) == errors.DONE
    near, far = read(tmp_path / "optimum.csv")
    assert float(near["tokens_low"]) < float(near["tokens"]) < float(near["tokens_high"])
    assert float(far["flops"]) == pytest.approx(1e24) and "n_total_nonemb" in far["outside"].split()
    assert float(near["flops_ratio_granularity_1"]) > 1
    assert "outside the fit: " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--law", "nothing", "--flops", "1e20"], "'nothing' is neither a law.json nor a law"),
        (["--law", "missing.json", "--flops", "1e20"], "there is no law missing.json"),
        (["--law", "krajewski2024", "--flops", "1e20,many"], "--flops is '1e20,many', must be numbers"),
        (["--law", "krajewski2024", "--flops", "nan"], "--flops is 'nan'"),
        (["--law", "abnar2025", "--flops", "1e20", "--sparsity", "1"], "--sparsity is 1, must be within [0, 1)"),
        (["--law", "abnar2025", "--flops", "1e20", "--sparsity", "0", "--expansion_rate", "2"], "give one"),
        (["--law", "krajewski2024:E=8", "--flops", "1e20"], "has no published coefficients 'E=8'"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_optimum_refuses(capsys, flags, sentence):
    assert command.run(optimum.main, flags) == errors.BAD_INPUT
    assert sentence in capsys.readouterr().err


def _without_a_store(tmp_path):
    """The smoke grid, planned without the store that `make demo` leaves in the checkout."""
    return ["--config=configs/smoke.py", f"--config.data.store={tmp_path}/none", "--config.model.vocab_size=256"]


def test_predictions_of_a_config_s_grid(tmp_path, capsys):
    call_fit(tmp_path, runs())
    out = tmp_path / "prediction.csv"
    config = _without_a_store(tmp_path)
    flags = [*config, "--law", str(tmp_path / "law.json"), "--out", str(out)]
    assert command.run(predict.main, flags) == errors.DONE
    rows = read(out)
    assert len(rows) == 27 and all(r["outside"] for r in rows)  # thousands of parameters, not billions
    law = laws.load(tmp_path / "law.json")
    for r in rows:
        at = {c: float(r[c]) for c in law.data.columns.values()}
        assert float(r["predicted_loss"]) == pytest.approx(float(law.loss_at(at)))
        assert float(r["low"]) < float(r["predicted_loss"]) < float(r["high"])
        assert float(r["law_low"]) < float(r["law_high"])
        above = max(float(r["law_high"]) - float(r["predicted_loss"]), 0)  # independent sources add in quadrature
        together = math.hypot(above, float(r["noise"]), float(r["law_error_beyond"]))
        assert float(r["high"]) - float(r["predicted_loss"]) == pytest.approx(together)
    said = capsys.readouterr().out
    assert "law's error beyond its data" in said and "noise of a run" in said and "predictions: " in said


def test_predictions_under_a_published_law_have_no_interval(tmp_path):
    config = _without_a_store(tmp_path)
    assert (
        command.run(predict.main, [*config, "--law", "krajewski2024", "--out", str(tmp_path / "p.csv")]) == errors.DONE
    )
    assert all(math.isnan(float(r["low"])) for r in read(tmp_path / "p.csv"))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        ([], "give a config"),
        (["--config=configs/smoke.py"], "--law is missing: give a law.json"),
        (["--config=configs/smoke.py", "--workdir=w"], "give a config"),
        (["--workdir=w", "--level=2"], "--level is 2, must be inside (0, 1)"),
        (["--workdir=nowhere"], "there is no law nowhere/law.json"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_predict_refuses(capsys, flags, sentence):
    assert command.run(predict.main, flags) == errors.BAD_INPUT
    assert sentence in capsys.readouterr().err
