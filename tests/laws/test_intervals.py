"""Intervals: small designs, clusters, walls; designs that cannot determine a coefficient say which and why."""

import itertools

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.laws import alternatives, bootstrap, designs, levenberg_marquardt, residuals
from moe_jax.laws.intervals import central
from moe_jax.laws.objective import Problem
from tests.fit_verb import call, runs
from tests.planted_laws import grid, planted

LEAST_SQUARES = laws.Objective(huber=np.inf)
FEW = laws.Resampling(samples=60)
HOFFMANN = laws.published("chinchilla")


def two_axes(N, D, noise=0.005, seed=0):
    cells = np.array(list(itertools.product(N, D)), float)
    return losses({"n_total": cells[:, 0], "tokens": cells[:, 1]}, noise, seed)


def losses(columns, noise, seed):
    loss = HOFFMANN.loss_at(columns)
    return {**columns, "eval_loss": loss * np.exp(noise * np.random.default_rng(seed).standard_normal(len(loss)))}


def fitted(table, objective=None, resampling=FEW, law="chinchilla"):
    return laws.fit(table, law=law, objective=objective, start=32, resampling=resampling).law


@pytest.mark.parametrize(("objective", "noise"), [(None, 0.005), (LEAST_SQUARES, 0.01)])
def test_sizes_that_span_a_factor_of_1_3_determine_neither_a_nor_alpha(objective, noise):
    for seed in range(2):
        law = fitted(two_axes(np.geomspace(1e8, 1.3e8, 5), np.geomspace(1e9, 1e11, 6), noise, seed), objective)
        assert {"A", "alpha"} <= set(law.identifiability.unidentified), seed
        assert law.data.design["span"]["N"] == pytest.approx(1.3)
        said = " ".join(law.identifiability.warnings)
        assert "cannot be told apart on N from 1e+08 to 1.3e+08" in said
        assert "N spans a factor of 1.3 only" in said
        low, high = law.intervals["A"]
        assert low <= law.coefficients["A"] <= high and high > 10 * low


def test_tokens_in_proportion_to_size_make_the_terms_exchangeable():
    N = np.geomspace(2e7, 5e9, 30)
    for seed in range(2):
        law = fitted(losses({"n_total": N, "tokens": 20 * N}, 0.005, seed))
        assert {"A", "alpha", "B", "beta"} <= set(law.identifiability.unidentified), seed
        assert law.data.design["correlation"]["N, D"] == pytest.approx(1)
        assert "N and D move together (correlation 1.0000)" in " ".join(law.identifiability.warnings)


def test_two_granularities_do_not_determine_three_coefficients():
    table, _ = planted("krajewski2024", grid(4, 4, (1, 2)), noise=0.003)
    law = fitted(table, law="krajewski2024")
    assert {"g", "gamma", "a"} <= set(law.identifiability.unidentified)


def test_a_spread_design_is_not_doubted():
    law = fitted(two_axes(np.geomspace(2e7, 5e9, 6), np.geomspace(4e8, 1e11, 6)))
    assert law.identifiability.unidentified == ()
    assert law.method.interval_method == "residuals"
    assert designs.Design(**law.data.design).warnings() == ()
    assert "move together" not in " ".join(law.identifiability.warnings)


def linear_problem(rng, rows=10, huber=np.inf):
    """A form that is linear in its coefficients: the textbook has its intervals."""
    form = laws.get("chinchilla")
    columns = {"N": np.geomspace(1e7, 1e9, rows), "D": np.geomspace(1e9, 1e10, rows)[rng.permutation(rows)]}
    truth = form.inner(HOFFMANN.coefficients)
    loss = HOFFMANN.loss_at({"N": columns["N"], "D": columns["D"]}) + 0.01 * rng.standard_normal(rows)
    problem = Problem(form, columns, loss, laws.Objective(space="linear", huber=huber))
    free = np.array([k in ("E", "A", "B") for k in form.names])
    return problem, truth, free, levenberg_marquardt.descend(problem, truth[None], None, free).theta[0]


@pytest.mark.parametrize(
    ("huber", "lowest", "highest"), [(np.inf, 0.74, 0.86), (1e-3, 0.7, 0.92)], ids=["least squares", "huber"]
)
def test_small_designs_are_covered_as_stated(huber, lowest, highest):
    """Ten rows, three coefficients. Pairs hold .70 here under least squares."""
    hits, form = [], laws.get("chinchilla")
    for seed in range(50):
        problem, truth, free, theta = linear_problem(np.random.default_rng(seed), huber=huber)
        without = levenberg_marquardt.descend(
            problem, np.tile(theta, (10, 1)), (1 - np.eye(10)).astype(np.uint8), free
        ).theta
        noise = residuals.noise(problem, theta, free, without)
        assert noise.freedom == 7 and noise.leverage.sum() == pytest.approx(3, abs=1e-6)
        samples = bootstrap.resample(problem, theta, free, laws.Resampling(samples=100, seed=seed), noise=noise)
        for k, (low, high) in central(samples, 0.8).items():
            if free[form.names.index(k)]:
                hits.append(low <= form.outer(truth)[k] <= high)
    assert lowest < np.mean(hits) < highest


def test_noise_left_out_is_the_residual_over_the_root_of_its_leverage_in_least_squares():
    problem, _, free, theta = linear_problem(np.random.default_rng(3))
    without = levenberg_marquardt.descend(
        problem, np.tile(theta, (10, 1)), (1 - np.eye(10)).astype(np.uint8), free
    ).theta
    one, other = (residuals.noise(problem, theta, free, w).values for w in (without, None))
    np.testing.assert_allclose(one, other, rtol=0.02, atol=1e-4)


def test_noise_that_grows_along_an_axis_is_not_mixed():
    rng, table = np.random.default_rng(0), two_axes(np.geomspace(2e7, 5e9, 6), np.geomspace(4e8, 1e11, 6), 0.0)
    size = 0.02 * (table["n_total"] / 2e7) ** -0.6
    table["eval_loss"] = table["eval_loss"] * np.exp(size * rng.standard_normal(36))
    assert fitted(table).method.interval_method == "wild"


def test_rows_that_share_their_noise_need_clusters():
    """A shift common to a budget's runs: drawn row by row, E looks three times as certain as it is."""
    rng, table = np.random.default_rng(0), two_axes(np.geomspace(2e7, 5e9, 8), np.geomspace(4e8, 1e11, 9), 5e-4)
    cell = pd.factorize(pd.Series(table["tokens"]))[0]
    table["eval_loss"] = table["eval_loss"] * np.exp(0.01 * rng.standard_normal(9))[cell]
    table["batch"] = [f"b{i}" for i in cell]

    def width(resampling):
        low, high = fitted(table, LEAST_SQUARES, resampling).intervals["beta"]
        return high - low

    alone, together = width(FEW), width(laws.Resampling(samples=60, cluster="batch"))
    pairs = width(laws.Resampling(samples=60, cluster="batch", method="pairs"))
    assert together > 1.4 * alone and pairs > 1.2 * alone


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"cluster": "budget"}, "--cluster is 'budget', and the table has no such column"),
        ({"cluster": "few"}, "--cluster few tells 3 clusters apart; an interval needs at least 5"),
        ({"cluster": "tokens", "method": "residuals"}, "may share their noise, which the method residuals mixes"),
        ({"method": "guess"}, "'guess' is none of residuals, wild, pairs"),
        ({"method": "wild", "fraction": 0.8}, "belong to pairs, not to wild"),
    ],
)
def test_wrong_options_are_refused(options, sentence):
    table, _ = planted("krajewski2024", grid(3, 3, (1, 4, 16)), noise=0.003)
    table["few"] = np.arange(27) % 3
    with pytest.raises(errors.UserError, match=sentence):
        laws.fit(table, start=4, resampling=laws.Resampling(samples=20, **options))


def test_the_verb_says_the_method_and_a_bad_design(tmp_path, capsys):
    table = runs().assign(cell=lambda t: t.tokens * t.n_total_nonemb, twin=lambda t: 20 * t.n_total_nonemb)
    assert call(tmp_path, table, "--cluster", "cell") == errors.DONE
    assert "intervals: bootstrap, wild" in capsys.readouterr().out
    flags = ["--columns", "tokens=twin", "--law", "krajewski2024", "--interval_method", "pairs"]
    assert call(tmp_path, table.drop(columns="name").drop_duplicates(["n_total_nonemb", "granularity"]), *flags) == 0
    said = capsys.readouterr().out
    assert "intervals: bootstrap, pairs" in said and "N and D move together (correlation 1.0000)" in said
    law = laws.load(tmp_path / "law.json")
    assert law.method.interval_method == "pairs" and law.data.design["levels"]["G"] == 3


def test_each_term_s_axes_are_found():
    form, rng = laws.get("abnar2025"), np.random.default_rng(0)
    columns = {"N": rng.uniform(1e8, 1e9, 9), "D": rng.uniform(1e9, 1e10, 9), "S": rng.uniform(0, 0.9, 9)}
    terms = designs.dependence(form, columns, form.inner(form.published["abnar2025"]))
    assert terms["e"] == frozenset() and terms["a"] == terms["alpha"] == {"N"} and terms["beta"] == {"D"}
    assert terms["lambda"] == {"S"} and terms["gamma"] == terms["d"] == {"N", "S"}


def test_an_optimum_at_a_wall_is_left_for_an_accepted_law_inside():
    form = laws.get("chinchilla")
    table = two_axes(np.geomspace(1e8, 1.3e8, 5), np.geomspace(1e9, 1e11, 6))
    columns = {"N": table["n_total"], "D": table["tokens"]}
    problem, free = Problem(form, columns, table["eval_loss"], LEAST_SQUARES), np.ones(5, bool)
    begin = form.inner({**HOFFMANN.coefficients, "E": 1e-9, "A": 10.0, "alpha": 0.08})
    held = np.array([k != "E" for k in form.names])
    theta = levenberg_marquardt.descend(problem, begin[None], None, held).theta[0]  # E held at its lowest
    found = alternatives.explore(problem, theta, free, residuals.noise(problem, theta, free, None))
    inside = found.inside(problem, theta)
    assert theta[0] == form.bounds()[0][0] and inside[0] > np.log(0.01)
    low, high = found.reach(form, theta, "alpha")
    assert high > 2 * low


@pytest.mark.parametrize(
    "objective",
    [laws.Objective(space="linear", huber=0.1, l1=5e-5), laws.Objective(huber=np.inf, one_sided=0.2)],
    ids=["penalised", "one-sided"],
)
def test_an_objective_that_pulls_the_law_off_its_rows_resamples_them(objective):
    """Losses drawn about such a law would be pulled once more: intervals of residuals miss the estimate itself."""
    law = fitted(two_axes(np.geomspace(1e8, 1e10, 6), np.geomspace(1e9, 1e11, 6), noise=0.02), objective)
    assert law.method.interval_method == "pairs"
    assert all(low <= law.coefficients[name] <= high for name, (low, high) in law.intervals.items())
