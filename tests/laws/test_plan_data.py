"""What a plan knows of the data behind its law: what N counts, which E, K and G there were, and how far it lies off."""

from dataclasses import replace

import numpy as np
import pytest

from moe_jax import errors, laws
from moe_jax.laws.published_runs import PUBLISHED_RUNS

PAPER = laws.published("krajewski2024")
CHINCHILLA = laws.published("chinchilla", "besiroglu2024")
QUICK = laws.Resampling(samples=0)


def counted_as(column):
    """A chinchilla law whose N is another count."""
    return replace(CHINCHILLA, data=replace(CHINCHILLA.data, columns={"N": column, "D": "tokens"}, range={}))


@pytest.mark.parametrize("column", ["n_active_nonemb", "n_total", "N_Active_NonEmb"])
def test_n_is_planned_as_it_was_fitted(column):
    """No other width is better when N is counted so; counted otherwise the plan is another."""
    law = counted_as(column)
    plan = laws.Planner(law).best(1e20)
    d = plan.values["d_model"] * np.exp(np.linspace(-1, 1, 201))
    columns = laws.Shape().columns(d, 1.0, 1.0, 1.0)
    tokens = 1e20 / (6 * columns["n_active"])
    losses = CHINCHILLA.loss_at({"N": columns[column.lower()], "D": tokens})
    assert losses.min() == pytest.approx(plan.values["loss"], abs=1e-12) and losses.argmin() == 100
    other = laws.Planner(counted_as("n_total" if column != "n_total" else "n_active_nonemb")).best(1e20)
    assert abs(np.log(other.values["d_model"] / plan.values["d_model"])) > 0.05


def test_a_column_that_does_not_say_what_it_counts_is_refused_until_it_is_said():
    law = counted_as("params")
    with pytest.raises(errors.UserError, match=r"N of this chinchilla was read from 'params'.*--counts=N=n_total"):
        laws.Planner(law)
    plan = laws.Planner(law, counts={"N": "n_active_nonemb"}).best(1e20)
    assert plan.values == laws.Planner(counted_as("n_active_nonemb")).best(1e20).values


@pytest.mark.parametrize(
    ("column", "counts", "sentence"),
    [
        ("params", {"N": "tokens"}, "cannot count 'tokens', only n_total_nonemb, n_active_nonemb, n_total or n_active"),
        ("n_total", {"N": "n_active"}, "was fitted as n_total, not n_active"),
        ("n_total", {"G": "granularity"}, "chinchilla has no G"),
    ],
)
def test_what_cannot_be_said_of_a_symbol_is_refused(column, counts, sentence):
    with pytest.raises(errors.UserError, match=sentence):
        laws.Planner(counted_as(column), counts=counts)


def test_a_table_with_another_count_is_not_taken_for_the_law_s():
    with pytest.raises(errors.UserError, match="needs N"):
        counted_as("n_active_nonemb").predict({"n_total": 1e9, "tokens": 1e10})


@pytest.mark.parametrize("name", sorted({form for form, _ in PUBLISHED_RUNS}))
def test_published_ranges_are_of_the_law_s_columns(name):
    form = laws.get(name)
    for (law, where), runs in PUBLISHED_RUNS.items():
        if law == name:
            assert where in form.published and runs.range.keys() <= set(form.columns.values())
            assert all(low <= high for low, high in runs.range.values())
            assert laws.published(name, where).data.range == runs.range


def test_a_plan_says_how_far_it_lies_from_the_runs():
    near, far = laws.Planner(CHINCHILLA).best(1e21), laws.Planner(PAPER).best(1e23)
    assert near.reach.columns == {} and near.reach.flops_ratio == pytest.approx(1e21 / 1.2956e22)
    assert near.reach.sentences() == () and near.outside == ()
    value, end = far.reach.columns["n_total_nonemb"]
    assert (value, end) == (far.values["n_total_nonemb"], PAPER.data.range["n_total_nonemb"][1])
    said = "; ".join(far.reach.sentences())
    assert f"n_total_nonemb {value / end:,.0f} × the largest in the law's runs" in said
    assert f"{1e23 / 2.083e19:,.0f} × the largest run behind this law" in said


def test_without_the_largest_run_its_flops_are_bounded_by_the_largest_n_and_d():
    law = replace(PAPER, data=replace(PAPER.data, largest_run={}))
    far = laws.Planner(law).best(1e23).reach
    assert far.at_least and 0 < far.flops_ratio < laws.Planner(PAPER).best(1e23).reach.flops_ratio
    train = replace(PAPER, data=replace(PAPER.data, largest_run={"train_flops": 1e20}))
    plan = laws.Planner(train).best(1e23)
    per_token = laws.Shape().flops_per_token("train_flops", plan.values)
    assert plan.reach.flops_ratio == pytest.approx(per_token * plan.values["tokens"] / 1e20) and not plan.reach.at_least
    unknown = laws.Planner(laws.published("kaplan2020")).best(1e21).reach
    assert not unknown.known and unknown.flops_ratio is None and unknown.sentences() == ()


def test_a_fit_keeps_its_largest_run():
    N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e8, 1e9, 4), np.geomspace(2e9, 2e10, 4)))
    table = {
        "n_total": N,
        "n_active": N,
        "tokens": D,
        "train_flops": 7 * N * D,
        "eval_loss": CHINCHILLA.loss_at({"N": N, "D": D}),
    }
    law = laws.fit(table, law="chinchilla", start=4, resampling=QUICK).law
    assert law.data.largest_run == {"flops_6nd": pytest.approx(1.2e20), "train_flops": pytest.approx(1.4e20)}
    assert laws.Planner(law).best(1.2e22).reach.flops_ratio == pytest.approx(100)


@pytest.mark.parametrize(
    ("name", "choices", "sentence"),
    [
        ("krajewski2024", {"expansion_rates": [16]}, "expansion_rate 16 is not in the data .*, which had 64"),
        ("krajewski2024", {"granularities": [1, 32]}, "granularity 32 is not in the data .*, which had 1 to 16"),
        ("krajewski2024", {"active_rate": 2}, "active_rate 2 is not in the data"),
        ("joint_moe2025", {"expansion_rates": [64]}, "expansion_rate 64 is not in the data .*, which had 1 to 32"),
        ("joint_moe2025", {"granularities": [8]}, "granularity 8 is not in the data"),
    ],
)
def test_experts_that_the_data_never_had_need_extrapolate(name, choices, sentence):
    law = laws.published(name)
    with pytest.raises(errors.UserError, match=sentence):
        laws.Planner(law, choices=laws.Choices(**choices, extrapolate=False))
    laws.Planner(law, choices=laws.Choices(**choices)).best(1e20)


def test_the_search_keeps_to_the_data_unless_it_may_extrapolate():
    kept, free = (laws.Planner(PAPER, choices=laws.Choices(extrapolate=e)) for e in (False, True))
    assert kept.experts.G.max() == 16 and free.experts.G.max() == 256
    plan = kept.best(1e22)
    assert plan.values["granularity"] == 16 < free.best(1e22).values["granularity"]
    assert plan.at_limit == ("granularity (the largest tried, within the law's data)",)
    sparse = laws.Planner(laws.published("abnar2025"), choices=laws.Choices(extrapolate=False))
    assert (1 - sparse.experts.K / sparse.experts.E).max() <= 0.95


def test_active_rates_are_searched_like_the_others():
    """Of K = 1, 2, 4 the best is the best of the three alone."""
    law = laws.published("abnar2025")
    plans = {K: laws.Planner(law, choices=laws.Choices(active_rate=K)).best(1e20) for K in (1, 2, 4)}
    together = laws.Planner(law, choices=laws.Choices(active_rate=(1, 2, 4))).best(1e20)
    best = min(plans, key=lambda K: plans[K].values["loss"])
    assert together.values == plans[best].values


@pytest.mark.parametrize("choices", [{"granularities": [0]}, {"expansion_rates": [0.0]}, {"active_rate": -1}])
def test_rates_of_zero_are_refused(choices):
    with pytest.raises(errors.UserError, match="it is above 0"):
        laws.Planner(PAPER, choices=laws.Choices(**choices))


def test_a_fit_is_shown_beside_the_coefficients_of_its_expansion_rate():
    for E, where in ((64, "E=64"), (16, "E=16, Table 8"), (4, "E=64")):
        law = replace(PAPER, data=replace(PAPER.data, constants={"expansion_rate": E}, n_fit=9))
        assert law.comparable_set == where and law.published_set is None
    assert PAPER.published_set == "E=64"


def test_an_impossible_plan_says_so():
    plan = laws.Planner(laws.published("gadre2024")).best(1e12)
    assert "layers of width" in plan.impossible and laws.Planner(PAPER).best(1e18).impossible == ""
