"""--rule: a law sets the learning rate, or the batch, of every run of a config."""

import argparse
import hashlib
import json
import math
import shutil
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from etils import epath

from moe_jax import errors, laws
from moe_jax.cli import command, doctor, fit, plan, predict, rules, sweep, train
from moe_jax.data import store
from moe_jax.sweep import from_config
from moe_jax.sweep.workdir import Workdir

TINY = "--config=configs/smoke.py:tiny"
PLANTED = {"a": 40.0, "b": -0.5, "c": -0.1}


def law_file(folder, name="rates", factor=1.0, low=1e3, **columns):
    """A law.json fitted to a planted sweep of rates over the sizes of configs/smoke.py:tiny, and around them."""
    rows = []
    for N in (low, 3e4, 3e5):
        for D in (1_000, 3_000, 9_000):
            best = factor * PLANTED["a"] * N ** PLANTED["b"] * D ** PLANTED["c"]
            for rate in best * 2.0 ** np.arange(-2, 3):
                loss = 2.5 + 0.05 * math.log(rate / best) ** 2
                rows.append({"n_total_nonemb": N, "tokens": D, "learning_rate": rate, "eval_loss": loss, **columns})
    path = folder / f"{name}.json"
    no_samples = laws.Resampling(samples=0)
    laws.fit(pd.DataFrame(rows), law="step_law_lr", start=4, resampling=no_samples).law.save(path)
    return path


@pytest.fixture(scope="module")
def rates(tmp_path_factory):
    return law_file(tmp_path_factory.mktemp("law"))


def planned(tmp_path, capsys, *flags):
    """(the runs of plan.json, what was printed)."""
    code = plan.main([TINY, f"--config.data.store={tmp_path}/none", *flags, f"--out={tmp_path}/plan.json"])
    assert code == errors.DONE
    return json.loads((tmp_path / "plan.json").read_text())["runs"], capsys.readouterr().out


def test_every_run_has_the_laws_rate_in_three_digits(tmp_path, capsys, rates):
    runs, said = planned(tmp_path, capsys, f"--rule={rates}")
    assert len(runs) == 8
    for run in runs:
        law = PLANTED["a"] * run["n_total_nonemb"] ** PLANTED["b"] * run["tokens"] ** PLANTED["c"]
        assert run["learning_rate"] == pytest.approx(law, rel=5e-3)
        assert run["learning_rate"] == float(f"{run['learning_rate']:.3g}")
    assert len({run["learning_rate"] for run in runs}) >= 4
    assert f"optim.learning_rate by step_law_lr ({rates}): " in said and "over 8 runs" in said
    without, _ = planned(tmp_path, capsys)
    assert [run["name"] for run in without] == [run["name"] for run in runs]  # the rule is no axis of the grid


def test_a_batch_is_set_first_in_whole_routing_groups(tmp_path, capsys):
    flags = ["--rule=marin_lr", "--rule=step_law_batch", "--extrapolate", "--config.data.sequence_length=4"]
    runs, said = planned(tmp_path, capsys, *flags, "--config.moe.group_sequences=2", "--config.train.microbatches=2")
    assert len({run["batch_tokens"] for run in runs}) == 2  # one for each D
    law = laws.published("marin_lr")
    for run in runs:
        best = 0.58 * run["tokens"] ** 0.571
        assert run["batch_tokens"] % 16 == 0 and abs(run["batch_tokens"] - best) <= 16
        rate = float(law.value_at({"D": run["tokens"], "d": run["d_model"], "B": run["batch_tokens"]}))
        assert run["learning_rate"] == pytest.approx(rate, rel=1e-2)
    assert "train.batch_sequences by step_law_batch (step_law_batch:li2025)" in said and "is not known here" in said


def test_outside_the_range_of_the_laws_runs_it_says_how_far(tmp_path, capsys):
    far = law_file(tmp_path, "far", low=1e4)
    with pytest.raises(errors.UserError, match=r"4 of 8 runs lie outside those of step_law_lr: up to"):
        planned(tmp_path, capsys, f"--rule={far}")
    runs, said = planned(tmp_path, capsys, f"--rule={far}", "--extrapolate")
    smallest = min(run["n_total_nonemb"] for run in runs)
    assert f": up to {1e4 / smallest:,.3g} times below in n_total_nonemb" in said


def test_what_the_laws_runs_had_in_common_and_these_do_not_is_said(tmp_path, capsys):
    path = law_file(tmp_path, "muon", optimizer="muon", sequence_length=32)
    _, said = planned(tmp_path, capsys, f"--rule={path}")
    assert "step_law_lr was fitted at optimizer muon, and the runs have adamw" in said
    assert "sequence_length" not in said


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--rule=krajewski2024"], "krajewski2024 gives a loss; a rule needs a law of learning rates or batches"),
        (["--rule=step_law_lr", "--rule=flops_lr"], "another --rule sets the learning_rate already"),
        (["--rule=nowhere.json"], "^--rule=nowhere.json: there is no law nowhere.json"),
        (["--rule=nowhere.py:law.json"], "^--rule=nowhere.py:law.json: there is no file nowhere.py"),
        (["--extrapolate"], "--extrapolate: concerns --rule, which is not given"),
        (["--rule=step_law_lr", "--config.optim.learning_rate=0.1"], "is given, and step_law_lr sets it too"),
        (["--rule=granular_lr"], "granular_lr is declared without published coefficients"),
    ],
)
def test_a_rule_that_cannot_be_is_refused(tmp_path, capsys, flags, sentence):
    with pytest.raises(errors.UserError, match=sentence):
        planned(tmp_path, capsys, *flags)


def test_a_grid_that_sets_the_rate_itself_is_refused(rates):
    with pytest.raises(errors.UserError, match=r"its grid sets optim.learning_rate, and step_law_lr would set it too"):
        plan.main(["--config=configs/lr_sweep.py:smoke", f"--rule={rates}", "--extrapolate"])


def test_a_law_over_a_column_that_no_config_has_is_refused(tmp_path, capsys):
    table = pd.read_csv(write_sweep(tmp_path)).rename(columns={"n_total_nonemb": "params"})
    fitted = laws.fit(table, law="step_law_lr", columns={"N": "params"}, resampling=laws.Resampling(samples=0), start=4)
    fitted.law.save(tmp_path / "params.json")
    with pytest.raises(errors.UserError, match="N of step_law_lr is params, which this config does not have"):
        planned(tmp_path, capsys, f"--rule={tmp_path}/params.json")


def write_sweep(folder):
    """results.csv of a planted sweep of rates."""
    rows = [
        {"n_total_nonemb": N, "tokens": D, "learning_rate": r, "eval_loss": 2 + 0.1 * math.log(r * N**0.5) ** 2}
        for N in (1e4, 1e5, 1e6)
        for D in (1e5, 1e6)
        for r in N**-0.5 * 3.0 ** np.arange(-2, 3)
    ]
    pd.DataFrame(rows).to_csv(folder / "results.csv", index=False)
    return folder / "results.csv"


OWN = """
from moe_jax.laws import declare, exponent, positive, power

@declare(
    formula="a * d^b", source="this test", columns={"d": "d_model"}, quantity="learning_rate",
    coefficients={"a": positive(1e-3, 1), "b": exponent(-1, 1)},
)
def my_lr(d, a, b):
    return a * power(d, b)
"""


def test_a_form_of_ones_own_gives_rates(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(laws.forms, "FORMS", dict(laws.FORMS))
    (tmp_path / "my_law.py").write_text(OWN)
    rows = [
        {"d_model": d, "learning_rate": rate, "eval_loss": 2 + math.log(rate * d / 0.2) ** 2}
        for d in (4, 8, 32)
        for rate in 0.2 / d * 2.0 ** np.arange(-2, 3)
    ]
    pd.DataFrame(rows).to_csv(tmp_path / "results.csv", index=False)
    flags = ["--workdir", str(tmp_path), "--bootstrap=5", "--starts=4", f"--law={tmp_path}/my_law.py:my_lr"]
    assert command.run(fit.main, flags) == errors.DONE
    assert "my_lr: learning_rate = a * d^b" in capsys.readouterr().out
    laws.forms.FORMS.pop("my_lr")  # as in a new process
    runs, _ = planned(tmp_path, capsys, f"--rule={tmp_path}/my_law.py:{tmp_path}/my_lr.json")
    assert {run["d_model"]: run["learning_rate"] for run in runs} == {8: 0.025, 16: 0.0125}


def test_other_verbs_take_no_law_of_rates(rates, capsys):
    assert command.run(predict.main, [f"--law={rates}", TINY]) == errors.BAD_INPUT
    assert "step_law_lr gives a learning rate, where a loss" in capsys.readouterr().err


def test_training_by_a_rule(tmp_path, capsys, words_store, rates):
    """The run's record names the law; another law is another config; a sweep's own runs need no rule."""
    work = tmp_path / "w"
    store = f"--config.data.store={words_store}"
    smallest = [TINY, store, "--config.train.tokens=2048", "--config.model.d_model=8", f"--workdir={work}"]
    assert train.main([*smallest, f"--rule={rates}"]) == errors.DONE
    assert f"optim.learning_rate by step_law_lr ({rates})" in capsys.readouterr().out
    [record] = (json.loads(path.read_text()) for path in work.glob("runs/*/run.json"))
    [result] = (json.loads(path.read_text()) for path in work.glob("runs/*/result.json"))
    rate = PLANTED["a"] * record["counts"]["n_total_nonemb"] ** PLANTED["b"] * 2048 ** PLANTED["c"]
    assert record["config"]["optim"]["learning_rate"] == pytest.approx(rate, rel=5e-3)
    digest = hashlib.sha256(rates.read_bytes()).hexdigest()
    law = {"law": "step_law_lr", "source": str(rates), "sha256": digest}
    assert record["rules"] == {"optim.learning_rate": law}
    assert result["config_hash"] == record["config_hash"]
    with pytest.raises(errors.UserError, match="concerns a --config"):
        train.main([f"--workdir={work}", f"--run={record['name']}", f"--rule={rates}"])

    other = law_file(tmp_path, "other", factor=1.5)
    named = rf"whose run {record['name']} has another config \(config.optim.learning_rate = .* there, .* here\)"
    with pytest.raises(errors.UserError, match=named):
        train.main([*smallest, f"--rule={other}"])
    assert train.main([*smallest, f"--rule={rates}"]) == errors.DONE  # it is done already


def test_a_store_of_ones_own_brings_its_mixture_beside_a_rule(tmp_path, words_store, rates):
    """And the sweep goes on with it: the same flags give the same runs."""
    shutil.copytree(words_store, tmp_path / "mine")
    info = store.read_info(str(tmp_path / "mine"))
    store.write_info(epath.Path(tmp_path / "mine"), replace(info, settings={**info.settings, "mixture": "mine"}))
    flags = argparse.Namespace(rule=[str(rates)], extrapolate=False)
    work = Workdir(str(tmp_path / "w"))
    for _ in range(2):
        file = rules.load([TINY, f"--config.data.store={tmp_path / 'mine'}"], flags)
        manifest, runs, _ = from_config.enter(file, work, whole_grid=True)
        assert {run.config.data.mixture for run in manifest.runs} == {"mine"}
        assert [run.config_hash for run in manifest.runs] == [run.config_hash for run in runs]
        assert len({run.config.optim.learning_rate for run in manifest.runs}) >= 4
        assert all(run.rules["optim.learning_rate"]["source"] == str(rates) for run in manifest.runs)


def test_a_sweep_keeps_the_rule_and_refuses_another(tmp_path, capsys, words_store, rates, monkeypatch):
    started = []
    monkeypatch.setattr("moe_jax.sweep.launchers.local_jobs.LocalJobs.train", lambda jobs: started.append(jobs) or [])
    monkeypatch.setattr(sweep, "conclude", lambda *_: errors.DONE)
    flags = [TINY, f"--config.data.store={words_store}", f"--workdir={tmp_path / 'w'}"]
    assert sweep.main([*flags, f"--rule={rates}"]) == errors.DONE
    assert "over 8 runs" in capsys.readouterr().out and len(started) == 1
    manifest = Workdir(str(tmp_path / "w")).existing_manifest()
    assert all(run.rules["optim.learning_rate"]["law"] == "step_law_lr" for run in manifest.runs)
    assert all("optim.learning_rate" in run.overrides for run in manifest.runs)
    assert sweep.main([*flags, f"--rule={rates}"]) == errors.DONE
    for others in ([], [f"--rule={law_file(tmp_path, 'other', factor=1.5)}"]):
        with pytest.raises(errors.UserError, match=r"has another config \(config.optim.learning_rate"):
            sweep.main([*flags, *others])
    doctor.main([*flags, f"--rule={rates}"])
    assert "holds a sweep of 8 runs" in capsys.readouterr().out
