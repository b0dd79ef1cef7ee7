"""The benchmark of coverage: blocks are kept, a run that was stopped goes on, and the table counts what it should."""

import argparse
import json

import numpy as np
import pytest

from experiments.benchmarks import coverage
from moe_jax import laws

FLAGS = argparse.Namespace(bootstrap=20, starts=4, method="")


def block(name, first, covered, asked, flagged=None, failures=0):
    return {
        "key": [name, "huber", first, first + 10, 20, 4, ""],
        "coverage": {"E": [covered, asked]},
        "flagged": flagged or {},
        "any_flagged": len(flagged or {}),
        "failures": failures,
        "replications": 10,
        "seconds": 1.0,
    }


def test_a_replication_is_planted_and_asked():
    case = coverage.CASES["small"]
    measured = coverage.measure(case, laws.Objective(huber=np.inf), range(2), FLAGS)
    assert measured["replications"] == 2 and measured["failures"] == 0
    assert set(measured["coverage"]) >= {"loss in the middle", "loss at 4 × N and D", "N*", "D*"}
    assert all(0 <= hits <= asked <= 2 for hits, asked in measured["coverage"].values())


def test_designs_have_the_axes_of_their_laws():
    for name, case in coverage.CASES.items():
        axes = case.axes(np.random.default_rng(0))
        assert set(axes) == set(case.law.form.symbols), name
        assert np.isfinite(case.law.loss_at(axes)).all(), name
        assert set(case.must_flag) <= set(case.law.form.names), name
    axes = coverage.CASES["D = 20 N"].axes(None)
    np.testing.assert_allclose(axes["D"] / axes["N"], 20)


def test_a_stopped_run_goes_on(tmp_path, monkeypatch):
    out, measured = tmp_path / "deep" / "coverage.jsonl", []
    coverage.append(str(out), block("wide", 0, 8, 10))
    with open(out, "a") as file:
        file.write('{"key": ["wide", "hub')  # the machine stopped here
    assert len(coverage.read(str(out))) == 1

    def instead(case, objective, seeds, flags):
        measured.append((seeds.start, seeds.stop))
        return {k: v for k, v in block("wide", seeds.start, 9, 10).items() if k != "key"}

    monkeypatch.setattr(coverage, "measure", instead)
    flags = ["--cases=wide", "--objectives=huber", "--replications=30", "--bootstrap=20", "--starts=4"]
    monkeypatch.setattr("sys.argv", ["coverage", *flags, f"--out={out}"])
    coverage.main()
    assert measured == [(10, 20), (20, 30)]
    assert [json.loads(line)["key"][2] for line in out.read_text().splitlines()] == [0, 10, 20]


def test_the_table_counts_bands_flags_and_misses(capsys):
    blocks = [block("chinchilla", 0, 8, 10), block("chinchilla", 10, 9, 10), block("narrow N", 0, 1, 3, {"A": 7}, 3)]
    coverage.show(blocks)
    said = capsys.readouterr().out
    assert "E 0.85" in said and "A 0.70" in said and "narrow N" in said
    assert "0 of 1 quantities covered at 0.77 to 0.83" in said and "1 of 1 quantities covered at 0.75 to 0.85" in said
    missed = next(line for line in said.splitlines() if line.startswith("narrow N"))
    assert missed.split()[-1] == "3" and "E 0.33" not in said  # mostly flagged: its coverage says nothing


@pytest.mark.parametrize("name", ["chinchilla", "abnar2025"])
def test_designs_drawn_at_random_differ_by_seed(name):
    case = coverage.CASES[name]
    one, two = (case.axes(np.random.default_rng(seed)) for seed in (0, 1))
    assert (one["N"] == two["N"]).all() == (name == "abnar2025")
