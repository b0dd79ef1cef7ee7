"""The fit verb: its tables and files, and one clear sentence with code 2 for every input that cannot be meant."""

import json
import os

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.cli import command, fit, fit_progress
from moe_jax.laws import limits
from tests.fit_verb import call, runs
from tests.unreadable import unreadable


def refused(tmp_path, capsys, table, *flags):
    assert call(tmp_path, table, *flags) == errors.BAD_INPUT
    said = capsys.readouterr().err
    assert said.startswith("moe-jax: ") and said.count("\n") == 1, said
    assert not (tmp_path / "law.json").exists()
    return said


def test_fit_prints_the_law_and_writes_it(tmp_path, capsys):
    assert call(tmp_path, runs()) == errors.DONE
    said = capsys.readouterr().out
    for part in (
        "krajewski2024: L = c + ",
        "N is n_total_nonemb; 36 runs fitted",
        "published: E=64",
        "RMSE 0.0",
        "law: ",
    ):
        assert part in said
    stored = json.loads((tmp_path / "law.json").read_text())
    assert stored["law"] == "krajewski2024"
    assert stored["fixed"] == {"expansion_rate": 64, "router": "expert_choice"}
    assert stored["columns"] == {"N": "n_total_nonemb", "D": "tokens", "G": "granularity"}
    assert stored["range"]["granularity"] == [1.0, 16.0]
    assert stored["cost"] == "flops_krajewski2024"
    assert (stored["n_fit"], stored["n_holdout"]) == (36, 0)
    for name, (low, high) in stored["intervals"].items():
        assert low <= high, name
    assert len(pd.read_csv(tmp_path / "law.bootstrap.csv")) == 20


def test_flags_win_over_the_preset(tmp_path):
    call(
        tmp_path,
        runs(),
        "--preset",
        "krajewski2024",
        "--penalty",
        "none",
        "--fix",
        "c=0.5",
        "--out",
        str(tmp_path / "a.json"),
    )
    stored = json.loads((tmp_path / "a.json").read_text())
    assert stored["coefficients"]["c"] == stored["fixed_coefficients"]["c"] == pytest.approx(0.5)
    assert stored["objective"]["l1"] == 0 and stored["objective"]["space"] == "linear"


def test_only_finished_runs_are_used_and_the_others_are_counted(tmp_path, capsys):
    table = runs()
    table.loc[3:5, ["status", "eval_loss"]] = ["diverged", np.nan]
    assert call(tmp_path, table) == errors.DONE
    assert "3 rows left out, not done: 3 diverged" in capsys.readouterr().out
    assert json.loads((tmp_path / "law.json").read_text())["n_fit"] == 33


def test_a_csv_without_status_counts_as_done(tmp_path):
    assert call(tmp_path, runs().drop(columns="status")) == errors.DONE
    assert json.loads((tmp_path / "law.json").read_text())["n_fit"] == 36


def test_columns_that_vary_outside_the_law_are_named(tmp_path, capsys):
    assert call(tmp_path, runs().assign(expansion_rate=[16, 64] * 18)) == errors.DONE
    assert (
        "krajewski2024 has no term for columns that vary besides its axes: expansion_rate (16, 64)"
        in capsys.readouterr().out
    )


def change(column, value, row=7):
    def changed(table):
        table = table.astype({column: object})
        table.loc[row, column] = value
        return table

    return changed


@pytest.mark.parametrize(
    ("spoil", "sentence"),
    [
        (lambda t: t.drop(columns="tokens"), "there is no column 'tokens' (D of krajewski2024"),
        (lambda t: t.drop(columns="eval_loss"), "there is no column 'eval_loss' (--loss picks"),
        (change("eval_loss", "n/a or so"), "eval_loss is not a number (n/a or so) in 1 row, first n7"),
        (change("eval_loss", np.nan), "eval_loss is empty or NaN in 1 row, first n7"),
        (change("eval_loss", np.inf), "eval_loss is infinite"),
        (change("eval_loss", -3.0), "eval_loss is zero or negative (-3.0)"),
        (change("tokens", 0), "tokens is zero or negative (0.0)"),
        (change("eval_loss", 31.0), "eval_loss is 31 in n7: losses are nats per token"),
        (change("tokens", 20.0), "tokens is 20 in n7: that looks like millions or billions"),
        (change("name", "n6"), "repeat a name, first 'n6': a run counts once"),
        (
            lambda t: pd.concat([t, t.head(1)]).drop(columns="name"),
            "1 row equal another in all columns, first row 37: a run counts once",
        ),
        (lambda t: t.head(6), "6 rows cannot determine 7 coefficients"),
        (lambda t: t[t.granularity == 4], "granularity has one value only (4), and krajewski2024 needs it to vary"),
        (lambda t: t.assign(status="failed"), "no row is done; 36 rows left out, not done: 36 failed"),
    ],
    ids=lambda v: v[:40] if isinstance(v, str) else "",
)
def test_bad_rows_are_refused_in_one_sentence(tmp_path, capsys, spoil, sentence):
    assert sentence in refused(tmp_path, capsys, spoil(runs()))


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--law", "krajewski"], "there is no law 'krajewski'; the laws are"),
        (["--preset", "hofman"], "there is no preset 'hofman'"),
        (["--fix", "d=3"], "has no coefficient 'd' to fix"),
        (["--fix", "g=-1"], "g = -1.0 cannot be fixed: in krajewski2024 it is positive"),
        (["--fix", "g"], "--fix is 'g', must be NAME=VALUE"),
        (["--fix", "g=big"], "--fix: 'big' is not a number"),
        (["--penalty", "l3:1"], "--penalty is 'l3:1', must be"),
        (["--huber", "0"], "huber is 0.0, must be above 0"),
        (["--starts", "0"], "0 starts asked"),
        (["--starts", "100000000000"], "--starts is 100,000,000,000: at most 1,000,000"),
        (["--bootstrap", "100000000000"], "--bootstrap is 100,000,000,000: at most 1,000,000"),
        (["--holdout", "lowest"], "--holdout is 'lowest', must be"),
        (["--holdout", "granularity:3"], "--holdout granularity:3: no rows have that value"),
        (["--holdout", "width:3"], "--holdout width:3: there is no column 'width'"),
        (["--drop", "highest:36"], "it must mark some rows and leave some"),
        (["--without_replacement"], "repeats the fit; give a fraction below 1"),
        (["--level", "1.5"], "the level inside (0, 1)"),
        (["--loss", "router"], "router is not a number (expert_choice)"),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_bad_flags_are_refused_in_one_sentence(tmp_path, capsys, flags, sentence):
    assert sentence in refused(tmp_path, capsys, runs(), *flags)


def test_files_that_are_no_results(tmp_path, capsys):
    assert command.run(fit.main, ["--workdir", str(tmp_path)]) == errors.BAD_INPUT
    assert "there is no results file" in capsys.readouterr().err
    (tmp_path / "results.csv").write_bytes(b"")
    assert command.run(fit.main, ["--workdir", str(tmp_path)]) == errors.BAD_INPUT
    assert "is not a readable CSV" in capsys.readouterr().err
    (tmp_path / "results.csv").unlink()
    os.mkfifo(tmp_path / "results.csv")
    assert command.run(fit.main, ["--workdir", str(tmp_path)]) == errors.BAD_INPUT
    assert "is damaged (a pipe or a device, where a file belongs)" in capsys.readouterr().err
    assert command.run(fit.main, []) == errors.BAD_INPUT
    assert "fit needs --results FILE or --workdir W" in capsys.readouterr().err


def test_the_same_request_is_shown_again_and_not_fitted_again(tmp_path, capsys, monkeypatch):
    law = tmp_path / "law.json"
    assert call(tmp_path, runs()) == errors.DONE
    first, stored = capsys.readouterr().out, law.read_bytes()
    with monkeypatch.context() as m:
        m.setattr(laws, "fit", lambda *_, **__: pytest.fail("fitted again"))
        assert call(tmp_path, runs()) == errors.DONE
    assert first in capsys.readouterr().out and law.read_bytes() == stored
    for table, flags in [(runs(noise=0.006), ()), (runs(), ("--huber", "0.1"))]:
        assert call(tmp_path, table, *flags) == errors.DONE
        assert "shown again" not in capsys.readouterr().out
    law.write_text("{")  # a damaged law is no answer
    assert call(tmp_path, runs()) == errors.DONE
    assert law.read_bytes() == stored


def test_a_law_that_may_not_be_read_is_not_replaced(tmp_path, capsys, monkeypatch):
    law = tmp_path / "law.json"
    law.write_text("sound, for all we know")
    monkeypatch.setattr(laws, "fit", lambda *_, **__: pytest.fail("fitted"))
    with unreadable(law):
        assert call(tmp_path, runs()) == errors.BAD_INPUT
    assert "law.json: cannot be read (Permission denied)" in capsys.readouterr().err
    assert law.read_text() == "sound, for all we know"


@pytest.mark.parametrize("flag", ["--out", "--figures"])
def test_an_output_that_cannot_be_written_is_refused_before_the_fit(tmp_path, capsys, monkeypatch, flag):
    monkeypatch.setattr(laws, "fit", lambda *_, **__: pytest.fail("fitted"))
    (tmp_path / "file").touch()
    for path in ("/proc/law.json", tmp_path / "file" / "law.json"):  # /proc takes no files, whoever asks
        said = refused(tmp_path, capsys, runs(), flag, str(path))
        assert f"{path}" in said and ("names another" in said or "name another" in said)
    assert "is a folder" in refused(tmp_path, capsys, runs(), "--out", str(tmp_path))


def test_a_law_that_cannot_be_written_after_a_long_fit_gets_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(fit_progress, "_QUIET_SECONDS", 0.0)
    monkeypatch.setattr(laws.Law, "save", lambda *_, **__: (_ for _ in ()).throw(OSError(5, "Input/output error")))
    assert call(tmp_path, runs()) == errors.FAILED
    said = capsys.readouterr().err.splitlines()
    assert said[-1].endswith("law.json cannot be written: input/output error; --out names another place")
    assert [line.partition(":")[0] for line in said[:-1]] == ["starts", "bootstrap samples"]


def test_more_samples_than_fit_are_refused_with_what_does(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(limits, "COUNTED", 36 * 64)
    sentence = "65 bootstrap samples of 36 rows are 2,340 draws, and a fit takes at most 2,304; --bootstrap=64"
    assert sentence in refused(tmp_path, capsys, runs(), "--bootstrap", "65")
