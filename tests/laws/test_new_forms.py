"""Forms beyond the papers' first ones: unit values, gradients, plans, and how runs with repeated tokens meet a law."""

import dataclasses

import jax
import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from moe_jax.laws.objective import Objective, Problem
from tests.planted_laws import QUICK, TYPICAL, moved, planted_runs

ROWS = {"n_total": [1e9], "n_active": [2e8], "n_active_nonemb": [1e9], "tokens": [2e10], "unique_tokens": [5e9]}
ROWS |= {"train_flops": [1e21], "d_model": [1024], "n_layers": [16], "top_k": [7], "shared_share": [0.3]}


def test_frontier_is_the_loss_that_marin_predicted():
    """2.606 at 1e21 FLOPs, of which 2.599 was measured."""
    assert laws.published("frontier").loss_at({"C": 1e21}) == pytest.approx(2.606, abs=1e-3)


@pytest.mark.parametrize(("C", "E"), [(1e18, 1.9), (None, 1.6)])
def test_frontier_is_fitted_to_the_best_run_of_each_budget(C, E):
    """Runs off the optimum lie above the frontier; --best_of keeps the best of each budget, --fix holds E."""
    budgets = np.repeat(np.geomspace(1e18, 1e22, 6), 5)
    off = np.tile([-2, -1, 0, 1, 2], 6)
    truth = dict(E=E, A=95.0, alpha=0.09)
    loss = laws.get("frontier").loss({"C": budgets}, truth) + 0.02 * off**2
    table = {"train_flops": budgets, "n_active_nonemb": 1e8 * 2.0**off, "eval_loss": loss}
    fix = {"E": E} if C is None else {}
    fitted = laws.fit(table, "frontier", best_of="n_active_nonemb", fix=fix, start=32, resampling=QUICK)
    assert len(fitted.rows) == 6
    assert fitted.law.coefficients == pytest.approx(truth, rel=1e-3)


def test_frontier_has_no_plan_and_says_so():
    with pytest.raises(errors.UserError, match="frontier has no N: it cannot plan a budget; take a law over N and D"):
        laws.Planner(laws.published("frontier"))


def test_muennighoff2023_is_the_formula_that_the_paper_prints():
    """Appendix A: U_N = min(.051 U_D, N), R* of 5.3 and 15.4; its exponent .35 is .3527 in two more digits."""

    def printed(N, D, U):
        n = min(0.051 * U, N)
        n_eff = n + 5.3 * n * (1 - np.exp(-(N / n - 1) / 5.3))
        d_eff = U + 15.4 * U * (1 - np.exp(-(D / U - 1) / 15.4))
        return 521 / n_eff**0.3527 + 1488 / d_eff**0.3527 + 1.87

    law = laws.published("muennighoff2023")
    for N, D, U in ((1e8, 1e9, 1e9), (2.8e9, 5.5e10, 5.5e10), (2.8e9, 5.5e10, 4e9), (8.7e9, 1.78e11, 2.5e10)):
        assert law.loss_at({"N": N, "D": D, "U": U}) == pytest.approx(printed(N, D, U), rel=2e-3)


def test_repeated_tokens_are_worth_less_and_less():
    law = laws.published("muennighoff2023")
    U = 1e10
    times = np.array([1, 2, 4, 16, 64, 1000])
    repeated = law.loss_at({"N": 3e8, "D": U * times, "U": U})
    fresh = law.loss_at({"N": 3e8, "D": U * times, "U": U * times})
    assert (np.diff(repeated) <= 0).all()
    assert repeated[0] == fresh[0] and (repeated[1:] > fresh[1:]).all()
    # Four epochs are almost as good as new tokens (their headline).
    assert repeated[2] - fresh[2] < 0.01 * fresh[2]
    # More unique tokens than a run reads are not unique tokens that it has seen.
    assert law.loss_at({"N": 3e8, "D": U, "U": 9 * U}) == law.loss_at({"N": 3e8, "D": U, "U": U})


def test_a_plan_with_few_unique_tokens_repeats_them_and_says_so():
    law = laws.published("muennighoff2023")
    free = laws.Planner(law).best(1e22)
    few = laws.Planner(law, limits=laws.Limits(unique_tokens=1e10)).best(1e22)
    assert free.at_limit == () and free.values["unique_tokens"] == free.values["tokens"]
    assert few.values["unique_tokens"] == 1e10 and few.values["loss"] > free.values["loss"]
    assert few.at_limit == (f"unique tokens (read {few.values['tokens'] / 1e10:.3g} times)",)
    # No other width does better on the same tokens.
    shape = laws.Shape()
    d = few.values["d_model"] * np.exp(np.random.default_rng(0).normal(0, 0.5, 300))
    columns = shape.columns(d, np.float64(1), np.float64(1), np.float64(1))
    tokens = 1e22 / shape.flops_per_token("flops_6nd", columns)
    other = law.loss_at({**columns, "tokens": tokens, "unique_tokens": np.minimum(tokens, 1e10)})
    assert other.min() >= few.values["loss"] - 1e-12


def test_a_law_without_repetition_says_which_runs_read_tokens_again():
    table, _ = planted_runs(laws.get("chinchilla"), 30, noise=0.001)
    table["unique_tokens"] = np.where(table["tokens"] > 1e11, table["tokens"] / 8, table["tokens"])
    fitted = laws.fit(table, "chinchilla", start=8, resampling=QUICK)
    again = int((table["tokens"] > 1e11).sum())
    assert f"{again} runs read tokens again, up to 8 times" in " ".join(fitted.law.data.notes)
    table["unique_tokens"] = table["tokens"]
    notes = laws.fit(table, "chinchilla", start=8, resampling=QUICK).law.data.notes
    assert not any("again" in note for note in notes)


@pytest.mark.parametrize("name", ["gemstones2025", "zhao2025"])
def test_no_other_width_of_the_budget_is_better(name):
    law, shape = moved(laws.get(name)), laws.Shape()
    choices = laws.Choices(expansion_rates=[8], granularities=[1, 2, 4, 8]) if name == "zhao2025" else laws.DENSE
    plan = laws.Planner(law, choices=choices).best(1e21)
    assert "width (the law has no optimum here)" not in plan.at_limit
    E, K, G = (plan.values[k] for k in ("expansion_rate", "active_rate", "granularity"))
    d = plan.values["d_model"] * np.exp(np.random.default_rng(0).normal(0, 0.5, 200))
    columns = shape.columns(d, E, K, G)
    tokens = 1e21 / shape.flops_per_token(law.form.cost, columns)
    assert law.loss_at({**columns, "tokens": tokens}).min() >= plan.values["loss"] - 1e-12


def test_farseer2025_has_no_lowest_loss_and_is_planned_within_a_limit():
    """Its first term goes to 0 with N: an endless model without tokens would have the lowest loss."""
    law = moved(laws.get("farseer2025"))
    assert laws.Planner(law).best(1e21).at_limit == ("width (the law has no optimum here)",)
    plan = laws.Planner(law, limits=laws.Limits(parameters=5e10)).best(1e21)
    assert plan.at_limit == () and 1e8 < plan.values["n_total"] < 1e10


def test_zhao2025_has_the_optima_that_its_authors_state():
    """About 7 active experts and a share of .31 of shared ones, whatever the size."""
    law = laws.published("zhao2025")
    for N in (1e9, 1e11):
        at = {"N": N, "A": N / 10, "D": 20 * N}
        K, R = np.arange(1, 33), np.linspace(0, 0.9, 91)
        assert abs(K[law.loss_at({**at, "K": K, "R": 0.3}).argmin()] - 7) <= 1
        assert R[law.loss_at({**at, "K": 7, "R": R}).argmin()] == pytest.approx(0.31, abs=0.011)
    assert "second-hand" in law.form.source and list(law.form.published) == ["second-hand"]


@pytest.mark.parametrize("name", ["frontier", "farseer2025", "gemstones2025", "muennighoff2023", "zhao2025"])
def test_gradients_are_finite_over_the_boxes_of_starts(name):
    form = laws.get(name)
    table = pd.DataFrame(ROWS)
    columns = {s: table[c].to_numpy() for s, c in form.columns.items()}
    problem = Problem(form, columns, np.array([2.5]), Objective())
    rng = np.random.default_rng(0)
    boxes = np.array([[c.inner(v) for v in c.start] for c in form.coefficients.values()])
    theta = rng.uniform(boxes[:, 0], boxes[:, 1], (64, len(form.names)))
    value, gradient, *_ = problem.normal_equations(theta, np.ones((64, 1)))
    assert np.isfinite(value).all() and np.isfinite(gradient).all()
    assert (np.abs(gradient).max(0) > 0).all()


def test_minimum_serves_numpy_and_jax():
    assert isinstance(laws.minimum(np.array([1.0, 3.0]), 2.0), np.ndarray)
    gradient = jax.grad(lambda x: laws.minimum(np.float32(2.0), x))(1.0)
    assert gradient == 1


def test_what_has_no_published_coefficients_says_so():
    unpublished = {name for name, form in laws.FORMS.items() if form.quantity == laws.LOSS and not form.published}
    assert set(TYPICAL) == unpublished
    with pytest.raises(errors.UserError, match="farseer2025 is declared without published coefficients"):
        laws.published("farseer2025")


def test_ling2025_leverage_is_the_papers():
    """More than 7 times at an activation ratio of 3.1%, G = 12 and 1e22 FLOPs; the best G is about 12."""
    assert laws.ling2025_leverage(0.031, 12, 1e22) == pytest.approx(7.24, abs=0.01)
    G = np.arange(1, 65)
    assert G[laws.ling2025_leverage(0.031, G, 1e22).argmax()] in (11, 12)
    assert laws.ling2025_leverage([0.01, 0.1], 12, 1e22).shape == (2,)


def test_leverage_is_the_ratio_of_flops_for_the_same_loss():
    moe, dense = laws.published("krajewski2024"), laws.published("krajewski2024_dense")
    table = laws.efficiency_leverage(moe, dense, [1e20], activation_ratios=[1 / 64], granularities=[1, 16])
    assert list(table["granularity"]) == [1, 16] and (table["leverage"].diff()[1:] > 0).all()
    for row in table.itertuples():
        # The dense law at that many FLOPs has the same loss.
        same = laws.Planner(dense, choices=laws.DENSE).best(row.leverage * row.flops)
        assert same.values["loss"] == pytest.approx(row.loss, abs=1e-5)
    assert table[["low", "high"]].isna().all().all()


def test_leverage_over_itself_is_one():
    law = laws.published("joint_moe2025")
    table = laws.efficiency_leverage(law, law, [1e20, 1e22], activation_ratios=[1, 1 / 8])
    assert table["leverage"][:2].to_numpy() == pytest.approx(1, abs=1e-3)
    assert (table["leverage"][2:] > 1.5).all()
    with pytest.raises(errors.UserError, match="an activation ratio of 2 is no share"):
        laws.efficiency_leverage(law, law, [1e20], activation_ratios=[2])


def test_leverage_carries_the_intervals_of_the_law():
    law = laws.published("chinchilla")
    spread = np.random.default_rng(0).normal(1, 0.02, 20)
    sampled = dataclasses.replace(law, samples={k: v * spread for k, v in law.coefficients.items()})
    row = laws.efficiency_leverage(sampled, law, [1e20], activation_ratios=[1]).iloc[0]
    assert row["low"] < row["leverage"] < row["high"]
