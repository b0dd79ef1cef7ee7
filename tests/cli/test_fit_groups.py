"""fit --group_by and --loss=A,B: one table, a law.json for each, and what is refused."""

import json
import math

import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.cli import command, fit, isoflop
from tests.fit_verb import runs


def call(tmp_path, table, *flags):
    table.to_json(tmp_path / "runs.jsonl", orient="records", lines=True)
    few = ["--results", str(tmp_path / "runs.jsonl"), "--bootstrap", "10", "--starts", "4", "--fix", "c=0.5"]
    return command.run(fit.main, [*few, *flags])


def grouped(*values):
    parts = [runs().assign(dataset=v, name=[f"{i}-{n}" for n in runs()["name"]]) for i, v in enumerate(values)]
    return pd.concat(parts, ignore_index=True).assign(code=lambda t: 0.9 * t["eval_loss"], sd=0.01)


def test_groups_and_losses_in_one_table_with_a_law_each(tmp_path, capsys):
    """The names of the files are safe, and tell values apart that look the same to a file system."""
    flags = ["--group_by=dataset", "--loss=eval_loss,`code`", "--sigma=sd", "--space=linear"]
    assert call(tmp_path, grouped("../C4 ", "..\\c4?"), *flags) == errors.DONE
    said = capsys.readouterr().out
    written = sorted(path.name for path in tmp_path.glob("law*.json"))
    assert written == [
        "law-.._C4_-code.json", "law-.._C4_-eval_loss.json", "law-.._c4_-code-2.json", "law-.._c4_-eval_loss-2.json",
    ]  # fmt: skip
    lines = [line.split() for line in said.splitlines()]
    law = laws.load(tmp_path / "law-.._C4_-code.json")
    for name, value in law.coefficients.items():
        assert [name, "../C4", "code", f"{value:.5g}"] in [line[:4] for line in lines]
    assert [line[0] for line in lines if line[-1] in written] == ["../C4", "../C4", "..\\c4?", "..\\c4?"]
    assert law.data.weights == "sigma=sd" and law.data.n_fit == 36 and law.intervals


def test_several_losses_without_groups(tmp_path, capsys):
    assert call(tmp_path, grouped("c4"), "--loss", "eval_loss,code", "--bootstrap=0") == errors.DONE
    both = [json.loads((tmp_path / f"law-{loss}.json").read_text()) for loss in ("eval_loss", "code")]
    assert [stored["loss"] for stored in both] == ["eval_loss", "code"]
    assert both[1]["coefficients"]["b"] < both[0]["coefficients"]["b"]
    assert "dataset" not in capsys.readouterr().out


def test_groups_of_a_law_of_rates(tmp_path, capsys):
    """Its files stand beside those of the law of losses, and what it gives is called by its name."""
    rates = [
        {"corpus": corpus, "train_flops": C, "learning_rate": best * f, "eval_loss": 2 + math.log(f) ** 2}
        for corpus, exponent in (("web", -0.1), ("code", -0.2))
        for C in (1e17, 1e18, 1e19, 1e20)
        for best in [C**exponent]
        for f in (0.5, 1, 2)
    ]
    pd.DataFrame(rates).to_csv(tmp_path / "runs.csv", index=False)
    flags = ["--law=flops_lr", "--group_by=corpus", "--bootstrap=0", "--starts=4"]
    assert command.run(fit.main, [f"--results={tmp_path}/runs.csv", *flags]) == errors.DONE
    said = capsys.readouterr().out
    assert "flops_lr: learning_rate = a * C^b" in said and "cells" in said and "runs" not in said
    found = {name: laws.load(tmp_path / f"flops_lr-{name}.json").coefficients["b"] for name in ("web", "code")}
    assert found == pytest.approx({"web": -0.1, "code": -0.2}, abs=1e-6)
    assert not list(tmp_path.glob("law*.json"))


def test_a_group_that_fails_is_said_after_the_others(tmp_path, capsys):
    table = pd.concat([grouped("c4"), grouped("few").head(3).assign(name=["a", "b", "c"])])
    assert call(tmp_path, table, "--group_by", "dataset", "--bootstrap=0") == errors.FAILED
    said = capsys.readouterr()
    assert "not fitted" in said.out and (tmp_path / "law-c4.json").exists()
    assert "1 of 2 fits could not be made, first few (eval_loss): 3 rows cannot determine 6" in said.err
    assert not (tmp_path / "law-few.json").exists()


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (
            ["--group_by=dataset", "--profile=alpha"],
            "--profile is for one fit, and --group_by and --loss ask for several",
        ),
        (["--loss=eval_loss,code", "--leverage=3"], "--leverage is for one fit"),
        (["--group_by=dataset", "--cross_validate=3"], "--cross_validate is for one fit"),
        (["--loss=eval_loss,"], "--loss is 'eval_loss,', must be a column, or several that differ"),
        (["--loss=code,code"], "must be a column, or several that differ"),
        (["--group_by=corpus"], "there is no column 'corpus' (--group_by names it); the columns are name, status"),
        (["--weights=sd", "--sigma=sd"], "--weights and --sigma exclude each other"),
        (
            ["--group_by=dataset", "--where=tokens < 5e9 and granularity == 4"],
            "no group could be fitted; c4 (eval_loss): 4 rows",
        ),
    ],
    ids=lambda v: " ".join(v) if isinstance(v, list) else "",
)
def test_flags_that_cannot_be_meant_together(tmp_path, capsys, flags, words):
    assert call(tmp_path, grouped("c4"), *flags) == errors.BAD_INPUT
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1
    assert not list(tmp_path.glob("law*.json"))


@pytest.mark.parametrize(
    ("flag", "words"),
    [
        ("--loss=eval_loss,code", "--loss=eval_loss,code: isoflop takes one column"),
        ("--group_by=dataset", "there is no flag --group_by=dataset"),
        ("--weights=sd", "there is no flag --weights=sd"),
    ],
)
def test_iso_flop_fits_take_one_loss_and_no_groups(capsys, flag, words):
    assert command.run(isoflop.main, ["--results=runs.csv", flag]) == errors.BAD_INPUT
    assert words in capsys.readouterr().err
