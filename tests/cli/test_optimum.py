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


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """The folder of a law.json."""
    folder = tmp_path_factory.mktemp("fitted")
    call_fit(folder, runs())
    return folder


def test_optimum_of_a_published_law(capsys):
    flags = ["--law", "krajewski2024", "--flops", "1e18,1e20", "--dense", "krajewski2024_dense"]
    assert command.run(optimum.main, flags) == errors.DONE
    said = capsys.readouterr().out
    assert "15.1×" in said and "18.3×" in said and "1.89×" in said and "optimum:" not in said


def test_optimum_of_a_fit_goes_beside_its_law(fitted, capsys):
    assert command.run(optimum.main, ["--law", str(fitted / "law.json"), "--flops", "1e19,1e24"]) == errors.DONE
    near, far = read(fitted / "optimum.csv")
    assert float(near["tokens_low"]) < float(near["tokens"]) < float(near["tokens_high"])
    assert float(far["flops"]) == pytest.approx(1e24) and "n_total_nonemb" in far["outside"].split()
    assert float(near["flops_ratio_granularity_1"]) > 1
    assert "outside the fit: " in capsys.readouterr().out


def test_the_set_shown_is_named_and_so_are_the_others(capsys):
    assert command.run(optimum.main, ["--law", "krajewski2024:E=16, Table 8", "--flops", "1e19"]) == errors.DONE
    said = capsys.readouterr().out
    assert "published coefficients 'E=16, Table 8' (others: --law='krajewski2024:E=64', " in said
    assert "N is n_total_nonemb; FLOPs are flops_krajewski2024" in said


def test_an_earlier_optimum_is_kept(tmp_path, capsys):
    out = tmp_path / "o.csv"
    for budget in ("1e19", "1e19", "1e20", "1e21"):
        assert command.run(optimum.main, ["--law", "chinchilla", "--flops", budget, "--out", str(out)]) == errors.DONE
    kept = [read(tmp_path / name)[0]["flops"] for name in ("o.1.csv", "o.2.csv", "o.csv")]
    assert [float(v) for v in kept] == pytest.approx([1e19, 1e20, 1e21]) and not (tmp_path / "o.3.csv").exists()
    assert f"the earlier {out} was moved to {tmp_path / 'o.2.csv'}" in capsys.readouterr().out


def test_memory_is_said_where_memory_limits(capsys):
    assert command.run(optimum.main, ["--law", "chinchilla", "--flops", "1e22", "--memory", "1e10"]) == errors.DONE
    assert "at the limit: memory" in capsys.readouterr().out
    assert command.run(optimum.main, ["--law", "chinchilla", "--flops", "1e22", "--memory", "10"]) == errors.BAD_INPUT
    assert "1e+22 FLOPs and at most 10 bytes of memory: no model" in capsys.readouterr().err


def test_next_runs_of_a_table(fitted, tmp_path, capsys):
    (tmp_path / "cells.csv").write_text("name,N,D,G\nsmall,1e8,4e9,1\nlarge,1e10,4e11,8\nmiddle,1e9,2e10,4\n")
    law, cells = str(fitted / "law.json"), str(tmp_path / "cells.csv")
    assert command.run(optimum.main, ["--law", law, "--flops", "1e21", "--next", cells, "--picks", "1"]) == errors.DONE
    rows = read(fitted / "next.csv")
    assert [r["pick"] for r in rows] == ["1", "", ""] and {r["name"] for r in rows} == {"small", "large", "middle"}
    assert all(0 < float(r["interval_left_alone"]) <= 1 for r in rows)
    cost = {r["name"]: float(r["flops"]) for r in rows}
    assert cost["large"] > 100 * cost["middle"] > 100 * cost["small"]
    assert "next runs: how much narrower" in capsys.readouterr().out


def test_predictions_of_a_table(fitted, tmp_path, capsys):
    (tmp_path / "cells.csv").write_text("what,N,tokens,G,expansion_rate\na,1e9,2e10,4,64\nb,1e11,2e10,4,16\n")
    flags = ["--law", str(fitted / "law.json"), "--csv", str(tmp_path / "cells.csv")]
    assert command.run(predict.main, flags) == errors.DONE
    a, b = read(tmp_path / "cells.prediction.csv")
    law = laws.load(fitted / "law.json")
    assert float(a["predicted_loss"]) == pytest.approx(float(law.loss_at({"N": 1e9, "D": 2e10, "G": 4})))
    assert float(a["low"]) < float(a["predicted_loss"]) < float(a["high"])
    assert (a["what"], a["outside"], b["outside"]) == ("a", "", "n_total_nonemb expansion_rate")
    (tmp_path / "cells.csv").write_text("N,D,G\n1e9,many,4\n")
    assert command.run(predict.main, flags) == errors.BAD_INPUT
    assert "D is many in row 1, must be a number above 0" in capsys.readouterr().err


def test_predictions_count_n_as_the_fit_did(tmp_path):
    table = runs()
    table["n_active_nonemb"] = table.pop("n_total_nonemb")
    call_fit(tmp_path, table, "--columns", "N=n_active_nonemb")
    out = tmp_path / "p.csv"
    config = _without_a_store(tmp_path)
    assert command.run(predict.main, [*config, "--law", str(tmp_path / "law.json"), "--out", str(out)]) == errors.DONE
    law = laws.load(tmp_path / "law.json")
    for r in read(out)[:3]:
        at = {"N": float(r["n_active_nonemb"]), "D": float(r["tokens"]), "G": float(r["granularity"])}
        assert float(r["predicted_loss"]) == pytest.approx(float(law.loss_at(at)))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--law", "gadre2024", "--flops", "1e12"], "the best plan for 1e+12 FLOPs has 96 active parameters"),
        (["--law", "krajewski2024", "--flops", "1e20", "--granularity", "0"], "--granularity is '0', must be above 0"),
        (["--law", "krajewski2024", "--flops", "1e20", "--granularity", "32"], "--extrapolate plans with it"),
        (["--law", "krajewski2024", "--flops", "1e20", "--counts", "N"], "--counts has 'N', must be SYMBOL=COLUMN"),
        (["--law", "krajewski2024", "--flops", "1e20", "--next", "c.csv"], "--next c.csv: there is no such file"),
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


def test_predictions_of_a_config_s_grid(fitted, tmp_path, capsys):
    out = tmp_path / "prediction.csv"
    config = _without_a_store(tmp_path)
    flags = [*config, "--law", str(fitted / "law.json"), "--out", str(out)]
    assert command.run(predict.main, flags) == errors.DONE
    rows = read(out)
    assert len(rows) == 27 and all(r["outside"] for r in rows)  # thousands of parameters, not billions
    law = laws.load(fitted / "law.json")
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
