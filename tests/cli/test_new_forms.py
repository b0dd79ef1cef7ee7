"""The verbs on the forms whose axes are not N, D and G: compute alone, unique tokens, active experts."""

import csv
import json

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.cli import collect, command, fit, optimum, predict
from tests import synthetic_sweep as synthetic


def call(verb, *flags):
    return command.run(verb.main, list(flags))


def test_frontier_from_a_table_of_several_sizes_a_budget(tmp_path, capsys):
    budgets, off = np.repeat(np.geomspace(1e18, 1e21, 5), 3), np.tile([-1, 0, 1], 5)
    loss = laws.published("frontier").loss_at({"C": budgets}) + 0.05 * off**2
    loss *= np.exp(1e-3 * np.random.default_rng(0).standard_normal(len(loss)))
    table = pd.DataFrame({"budget": budgets, "n_active_nonemb": 1e8 * 2.0**off, "eval_loss": loss})
    table.to_csv(tmp_path / "runs.csv", index=False)
    flags = ["--results", str(tmp_path / "runs.csv"), "--law=frontier", "--columns=C=budget", "--starts=16"]
    flags += ["--best_of=n_active_nonemb", "--bootstrap=0"]
    assert call(fit, *flags, "--fix=E=1.6", "--profile=alpha") == errors.DONE
    said = capsys.readouterr().out
    assert "5 of 15 runs kept" in said and "profile of alpha: the data accept 0.09" in said
    law = tmp_path / "law.json"
    assert json.loads(law.read_text())["coefficients"]["alpha"] == pytest.approx(0.0941, rel=0.01)
    assert call(optimum, "--law", str(law), "--flops=1e22") == errors.BAD_INPUT
    said = capsys.readouterr().err
    assert "frontier has no N: it cannot plan a budget; take a law over N and D" in said and said.count("\n") == 1


@pytest.fixture(scope="module")
def repeating(tmp_path_factory):
    """A finished sweep whose longest runs read the store's tokens nearly twice."""
    work, planned = synthetic.make(tmp_path_factory.mktemp("repeating") / "w")
    for run in planned:
        synthetic.finish(work, run)
    assert collect.main(["--workdir", str(work.path)]) == 0
    return work, planned


def test_runs_that_read_tokens_again_are_said_and_have_a_law(repeating, capsys):
    work, planned = repeating
    flags = ["--workdir", str(work.path), "--bootstrap=0", "--starts=4"]
    assert call(fit, *flags) == errors.DONE
    assert "9 runs read tokens again, up to 1.9" in capsys.readouterr().out
    assert call(fit, *flags, "--law=muennighoff2023") == errors.DONE
    assert "read tokens again" not in capsys.readouterr().out
    stored = json.loads((work.path / "law.json").read_text())
    assert stored["columns"]["U"] == "unique_tokens"
    low, high = stored["range"]["unique_tokens"]
    assert low < 97_000 and 199_000 < high <= 200_000
    # What is predicted has the unique tokens that the sweep's store gives.
    assert call(predict, "--workdir", str(work.path)) == errors.DONE
    with open(work.path / "prediction.csv") as file:
        rows = {row["name"]: row for row in csv.DictReader(file)}
    longest = max(planned, key=lambda run: run.counts.tokens)
    assert float(rows[longest.name]["unique_tokens"]) == high < longest.counts.tokens


def test_optimum_plans_repetition_where_a_law_has_a_term_for_it(tmp_path, capsys):
    flags = ["--flops=1e22", "--unique_tokens=1e10", "--out", str(tmp_path / "optimum.csv")]
    assert call(optimum, "--law=muennighoff2023", *flags) == errors.DONE
    assert "at the limit: unique tokens (read " in capsys.readouterr().out
    with open(tmp_path / "optimum.csv") as file:
        [row] = csv.DictReader(file)
    assert float(row["unique_tokens"]) == 1e10 < float(row["tokens"])
    assert call(optimum, "--law=chinchilla", *flags) == errors.BAD_INPUT
    assert "--unique_tokens needs a law that says what reading tokens again is worth" in capsys.readouterr().err
    assert call(optimum, "--law=muennighoff2023", "--flops=1e22", "--unique_tokens=-1") == errors.BAD_INPUT
    assert "--unique_tokens is -1, must be above 0" in capsys.readouterr().err


def test_optimum_of_zhao2025_shows_the_granularity_that_it_chose(capsys):
    assert call(optimum, "--law=zhao2025", "--flops=1e21", "--expansion_rate=16") == errors.DONE
    said = capsys.readouterr().out.splitlines()
    heads = next(i for i, line in enumerate(said) if line.startswith("FLOPs "))
    assert " G " in said[heads] and " 8 " in said[heads + 1]
