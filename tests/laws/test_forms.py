"""The forms: published numbers, declarations that match their formula, and planted laws recovered for every form."""

import json
import re

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.laws import repetition, sparse
from tests.planted_laws import QUICK, design, moved, planted_runs
from tests.reference import REFERENCE, needs_reference

LOSSES = [name for name, form in laws.FORMS.items() if form.quantity == laws.LOSS]  # the others: test_rates.py


@pytest.mark.parametrize("name", LOSSES)
def test_a_planted_law_without_noise_is_found_again(name):
    table, truth = planted_runs(laws.get(name), 100, noise=0)
    law = laws.fit(table, law=name, start=64, resampling=QUICK).law
    assert law.errors["rmse_fit"] < 1e-7
    # farseer2025 hardly tells a1 N^alpha + b1 from a line in ln N: its optimum is flat to the last bits.
    assert law.coefficients == pytest.approx(dict(truth.coefficients), rel=1e-2 if name == "farseer2025" else 1e-3)
    assert law.method.starts_at_best >= 1


@pytest.mark.slow
@pytest.mark.parametrize("name", ["kaplan2020", "chinchilla", "krajewski2024", "abnar2025"])
def test_intervals_cover_the_planted_law_as_often_as_they_say(name):
    """80% intervals of 12 noisy sweeps: 10 ± 1.4 hits expected for each coefficient, fewer than 6 is beyond chance.

    The other forms, and more sweeps, are for experiments/benchmarks/coverage.py."""
    form, sweeps = laws.get(name), 12
    hits = dict.fromkeys(form.names, 0)
    for sweep in range(sweeps):
        table, truth = planted_runs(form, 100, noise=0.003, seed=sweep)
        options = {"objective": laws.Objective(huber=np.inf), "resampling": laws.Resampling(samples=60)}
        for k, (low, high) in laws.fit(table, law=name, start=8, **options).law.intervals.items():
            hits[k] += low <= truth.coefficients[k] <= high
    assert min(hits.values()) >= 6, hits
    assert 0.68 * sweeps < np.mean(list(hits.values())) < 0.96 * sweeps, hits


def test_coverage_of_a_small_grid():
    """12 runs for 5 coefficients: intervals must not be too narrow where a bootstrap could make them so."""
    N, D = (a.ravel() for a in np.meshgrid([1e8, 5e8, 2e9, 1e10], [4e9, 4e10, 4e11]))
    truth = moved(laws.get("chinchilla"))
    hits = []
    for sweep in range(20):
        loss = truth.loss_at({"N": N, "D": D}) * np.exp(0.003 * np.random.default_rng(sweep).standard_normal(12))
        table = {"n_total": N, "tokens": D, "eval_loss": loss}
        law = laws.fit(table, law="chinchilla", start=8, resampling=laws.Resampling(samples=60)).law
        hits += [low <= truth.coefficients[k] <= high for k, (low, high) in law.intervals.items()]
    assert np.mean(hits) > 0.65


def test_abnar2025_values():
    law = laws.published("abnar2025")
    for (N, D, S), loss in {
        (1e9, 2e10, 0): 2.56568,
        (1e9, 2e10, 0.5): 2.58995,
        (1e9, 2e10, 0.9): 2.70187,
        (1e9, 2e10, 0.98): 2.89776,
        (1e10, 2e10, 0.95): 2.40731,
        (3e8, 1e10, 0): 2.92026,
        (5e9, 5e10, 0.75): 2.26510,
    }.items():
        assert law.loss_at({"N": N, "D": D, "S": S}) == pytest.approx(loss, abs=1e-5)


@needs_reference
def test_joint_table_4_follows_from_table_3():
    """At one E the joint law is m N^μ + n D^ν + c; both are read off by finite differences of the declared formula."""
    tables = json.loads((REFERENCE / "published_values.json").read_text())["joint"]
    law = laws.published("joint_moe2025")
    assert dict(law.coefficients) == tables["table3_as_printed"]
    far = 1e300  # its term vanishes

    def term(at_1, at_2, size_1, size_2, c):
        exponent = np.log((at_2 - c) / (at_1 - c)) / np.log(size_2 / size_1)
        return (at_1 - c) / size_1**exponent, exponent

    for E, (m, mu, n, nu) in ((float(k), v) for k, v in tables["table4_per_E"].items()):
        c = law.coefficients["c"]
        in_N = [float(law.loss_at({"N": N, "D": far, "E": E})) for N in (1e8, 1e10)]
        in_D = [float(law.loss_at({"N": far, "D": D, "E": E})) for D in (1e9, 1e11)]
        assert term(*in_N, 1e8, 1e10, c) == pytest.approx((m, mu), rel=4e-3)
        assert term(*in_D, 1e9, 1e11, c) == pytest.approx((n, nu), rel=4e-3)


@needs_reference
@pytest.mark.parametrize(
    ("router", "expected"),
    [
        ("S-Base", (-0.0830, -0.1180, 0.0099, 1.1136, 2.07, 239)),
        ("RL-R", (-0.0827, -0.1234, 0.0112, 1.1070, 1.72, 470)),
        ("Hash", (-0.0874, -0.1384, 0.0126, 1.1595, 4.27, 427)),
    ],
)
def test_clark2022_from_its_own_losses(router, expected):
    law = laws.fit(
        pd.read_csv(REFERENCE / "clark_final_step.csv"),
        law="clark2022",
        loss="loss_validation",
        columns={"N": "dense_parameter_count", "E": "num_experts"},
        where=f"routing_frequency == 0.5 and k == 1 and seed == 42 and router_type in ('{router}', 'Dense')",
        objective=laws.Objective(huber=np.inf),
        resampling=QUICK,
    ).law
    assert 56 <= law.data.n_fit <= 59
    assert list(law.coefficients.values()) == pytest.approx(expected, rel=5e-3)


@pytest.mark.parametrize("name", LOSSES)
def test_the_printed_formula_is_the_function(name):
    form = laws.get(name)
    table, law = design(form, runs=50), moved(form)
    known = {"log": np.log, "exp": np.exp, "min": np.minimum, "saturated": sparse.saturated}
    known |= {"saturating": repetition.saturating, "lambda_": law.coefficients.get("lambda")}
    known |= {s: np.asarray(table[c], float) for s, c in form.columns.items()} | law.coefficients
    value, *definitions = re.sub(r"\blambda\b", "lambda_", form.formula).replace("^", "**").split("; ")
    for definition in definitions:
        symbol, _, expression = definition.partition(" = ")
        known[symbol] = eval(expression, {"__builtins__": {}}, known)  # noqa: S307
    printed = eval(value, {"__builtins__": {}}, known)  # noqa: S307
    assert np.ptp(printed) > 0
    np.testing.assert_allclose(printed, law.loss_at(table), rtol=1e-9)


def test_a_declaration_that_does_not_fit_its_formula_is_refused():
    parts = {"formula": "", "source": "", "columns": {"D": "tokens"}, "coefficients": {"E": laws.positive(1, 2)}}
    with pytest.raises(ValueError, match=r"is a function of \['D', 'F'\], declared with \['D', 'E'\]"):
        laws.declare(**parts, published={})(lambda D, F: F)
    with pytest.raises(ValueError, match="publishes"):
        laws.declare(**parts, published={"here": {"A": 1.0}})(lambda D, E: E)


def test_sparsity_may_be_zero_but_not_one():
    table, _ = planted_runs(laws.get("abnar2025"), 40, noise=0)
    assert (table["sparsity"] == 0).any()
    table["sparsity"] = np.where(table["sparsity"] == 0.98, 1.0, table["sparsity"])
    with pytest.raises(errors.UserError, match=r"sparsity is outside \[0, 1\) \(1.0\)"):
        laws.fit(table, law="abnar2025", resampling=QUICK)
