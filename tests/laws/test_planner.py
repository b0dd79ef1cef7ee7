"""The planner: published optima are reproduced, limits bind, and no other model beats a plan."""

import json
from dataclasses import replace

import numpy as np
import pytest

from moe_jax import errors, laws
from tests.reference import REFERENCE, needs_reference

PAPER = laws.published("krajewski2024")
PLANNER = laws.Planner(PAPER)
COARSE = laws.Choices(granularities=[1], expansion_rates=[64])


@needs_reference
def test_krajewski2024_table_2():
    """N, D, FLOPs to 1% and the loss to .003 from the unrounded coefficients, the same G."""
    table = json.loads((REFERENCE / "published_values.json").read_text())["paper1"]["table2"]
    for row in table:
        plan = PLANNER.best(row["F"])
        assert plan.values["n_active_nonemb"] == pytest.approx(row["N_act"], rel=0.01)
        assert plan.values["tokens"] == pytest.approx(row["D"], rel=0.01)
        assert plan.values["granularity"] == row["G"]
        assert plan.values["flops"] == pytest.approx(row["F"], rel=1e-9)
        assert plan.values["loss"] == pytest.approx(row["L"], abs=0.003)


@needs_reference
def test_krajewski2024_table_2_by_size():
    """The budget for which a printed size is optimal is the printed one, and so are D, G and the loss."""
    for row in json.loads((REFERENCE / "published_values.json").read_text())["paper1"]["table2"]:
        plan = PLANNER.of_size(row["N_act"])
        assert plan.values["n_active_nonemb"] == pytest.approx(row["N_act"], rel=1e-3)
        assert plan.values["flops"] == pytest.approx(row["F"], rel=0.02)
        assert plan.values["tokens"] == pytest.approx(row["D"], rel=0.012)
        assert plan.values["granularity"] == row["G"] and plan.intervals == {}
        assert plan.values["loss"] == pytest.approx(row["L"], abs=0.004)


@pytest.mark.parametrize(
    ("E", "n_active", "tokens"),
    [
        (1, 1.7e9, 9.7e9),
        (2, 1.5e9, 11.4e9),
        (4, 1.2e9, 13.9e9),
        (8, 990e6, 17e9),
        (16, 810e6, 20.7e9),
        (32, 669e6, 24.9e9),
    ],
)
def test_joint_moe2025_table_1(E, n_active, tokens):
    choices = laws.Choices(expansion_rates=[E])
    plan = laws.Planner(laws.published("joint_moe2025"), choices=choices).best(1e20)
    assert plan.values["n_active"] == pytest.approx(n_active, rel=0.025)
    assert plan.values["tokens"] == pytest.approx(tokens, rel=0.015)


@pytest.mark.parametrize(("flops", "dense", "coarse"), [(1e18, 15.1, 1.70), (1e20, 18.3, 1.89), (1e25, 26.4, 2.23)])
def test_what_dense_and_one_big_expert_cost(flops, dense, coarse):
    """krajewski2024's headline says 20x at 1e20 and over 40x at 1e25; its coefficients say this."""
    plan = PLANNER.best(flops)
    ratio, interval = PLANNER.compute_ratio(plan, laws.Planner(laws.published("krajewski2024_dense")))
    assert ratio == pytest.approx(dense, rel=0.005) and interval is None
    assert PLANNER.compute_ratio(plan, replace(PLANNER, choices=COARSE))[0] == pytest.approx(coarse, rel=0.005)


def test_flops_for_a_loss_are_the_budget_that_reaches_it():
    losses = [PLANNER.best(C).values["loss"] for C in (1e19, 1e22)]
    assert PLANNER.flops_for(losses) == pytest.approx([1e19, 1e22], rel=1e-3)
    assert PLANNER.flops_for([PAPER.coefficients["c"]])[0] == np.inf  # the irreducible loss


def test_chinchilla_optimum_is_the_closed_form():
    law = laws.published("chinchilla")
    c = law.coefficients
    total = c["alpha"] + c["beta"]
    scale = (c["alpha"] * c["A"] / (c["beta"] * c["B"])) ** (1 / total)
    for C in (1e18, 5.76e23):
        plan = laws.Planner(law).best(C)
        assert plan.values["n_total"] == pytest.approx(scale * (C / 6) ** (c["beta"] / total), rel=1e-4)
        assert plan.values["tokens"] == pytest.approx((C / 6) ** (c["alpha"] / total) / scale, rel=1e-4)


@pytest.mark.parametrize(
    "name", ["krajewski2024", "abnar2025", "joint_moe2025", "frantar2023", "gadre2024", "kaplan2020"]
)
def test_no_other_model_of_the_budget_is_better(name):
    law, shape = laws.published(name), laws.Shape()
    plan = laws.Planner(law).best(1e21)
    rng = np.random.default_rng(0)
    E, K, G = (plan.values[k] for k in ("expansion_rate", "active_rate", "granularity"))
    d = plan.values["d_model"] * np.exp(rng.normal(0, 0.5, 200))
    columns = shape.columns(d, E, K, G)
    tokens = 1e21 / shape.flops_per_token(law.form.cost, columns)
    assert law.loss_at({**columns, "tokens": tokens}).min() >= plan.values["loss"] - 1e-12


def test_limits_bind_and_are_said():
    free = PLANNER.best(1e22)
    assert free.at_limit == ()
    few = laws.Planner(PAPER, limits=laws.Limits(tokens=free.values["tokens"] / 4)).best(1e22)
    assert few.values["tokens"] == pytest.approx(free.values["tokens"] / 4) and few.at_limit[0] == "tokens"
    assert few.values["n_total"] > free.values["n_total"] and few.values["loss"] > free.values["loss"]
    assert few.values["flops"] == pytest.approx(1e22)
    small = laws.Planner(PAPER, limits=laws.Limits(memory_bytes=16 * 1e11)).best(1e22)
    assert small.values["n_total"] == pytest.approx(1e11, rel=1e-3) and small.at_limit == ("memory",)
    coarse = laws.Planner(PAPER, choices=laws.Choices(granularities=(1, 2, 4))).best(1e22)
    assert coarse.values["granularity"] == 4 and coarse.at_limit == ("granularity (the largest tried)",)


def test_a_ratio_respects_the_limits_of_the_other_planner():
    """Coarse experts that may not grow never reach the loss of fine ones; the plan itself reaches its own."""
    limited = laws.Planner(PAPER, limits=laws.Limits(parameters=3e10, tokens=1e11))
    plan = limited.best(1e22)
    own = laws.Choices(granularities=[plan.values["granularity"]], expansion_rates=[64])
    assert limited.compute_ratio(plan, replace(limited, choices=COARSE))[0] == np.inf
    assert limited.compute_ratio(plan, laws.Planner(PAPER, choices=COARSE))[0] < 1  # a larger model on more tokens does
    assert limited.compute_ratio(plan, replace(limited, choices=own))[0] == pytest.approx(1, abs=1e-3)


def test_a_costlier_router_asks_for_fewer_experts():
    costs = ("train_flops", "flops_krajewski2024")
    cheap, dear = (laws.Planner(PAPER, cost=cost).best(1e20).values for cost in costs)
    assert cheap["granularity"] > dear["granularity"]


def test_the_counts_of_a_shape_are_those_of_a_config():
    """At a width that both can describe."""
    from configs import common
    from moe_jax.config import counts, fields

    raw = common.get_config()
    raw.model.d_model, raw.model.n_layers, raw.model.n_heads = 256, 4, 4
    raw.moe.expansion_rate, raw.moe.granularity = 64, 8
    config = fields.from_dict(raw.to_dict())
    V = 5000
    expected, flops = counts.count_parameters(config, V), counts.count_flops(config, V, tokens=1_000_000)
    shape = laws.Shape(64, config.model.ff_matrices, config.model.d_ff / 256, V, config.data.sequence_length)
    columns = shape.columns(256.0, 64.0, 1.0, 8.0)
    for name in ("n_total_nonemb", "n_active_nonemb", "n_router"):
        assert columns[name] == getattr(expected, name), name
    assert columns["n_total"] == pytest.approx(expected.n_total, rel=5e-3)  # the same
    for cost in ("flops_krajewski2024", "flops_abnar2025", "train_flops"):
        assert shape.flops_per_token(cost, columns) * 1e6 == pytest.approx(getattr(flops, cost)), cost
    assert shape.flops_per_token("flops_6nd", columns) * 1e6 == pytest.approx(flops.flops_6nd, rel=5e-3)


def test_intervals_carry_the_bootstrap_through():
    rng = np.random.default_rng(0)
    N, D, G = (a.ravel() for a in np.meshgrid(np.geomspace(1e8, 1e10, 5), np.geomspace(4e9, 4e11, 5), [1, 2, 4, 8, 16]))
    table = {"n_total_nonemb": N, "tokens": D, "granularity": G, "expansion_rate": 64}
    loss = PAPER.loss_at(table) * np.exp(0.003 * rng.standard_normal(len(N)))
    law = laws.fit({**table, "eval_loss": loss}, fix={"c": 0.472}, resampling=laws.Resampling(samples=60)).law
    planner = laws.Planner(law)
    near, far = planner.best(1e20), planner.best(1e24)
    for plan in (near, far):
        low, high = plan.intervals["tokens"]
        assert low < plan.values["tokens"] < high
    assert near.intervals["tokens"][0] < PLANNER.best(1e20).values["tokens"] < near.intervals["tokens"][1]
    spread = [np.log(p.intervals["tokens"][1] / p.intervals["tokens"][0]) for p in (near, far)]
    assert spread[1] > spread[0]
    assert "n_total_nonemb" in far.outside and "granularity" in far.outside
    ratio, (low, high) = planner.compute_ratio(near, replace(planner, choices=COARSE))
    assert low < ratio < high and 1.5 < ratio < 2.3


def test_searches_in_parts_find_the_same(monkeypatch):
    """Samples, losses and budgets may be more than fit into memory at once."""
    rng = np.random.default_rng(0)
    samples = {k: v * (1 + 0.02 * rng.standard_normal(12)) for k, v in PAPER.coefficients.items()}
    planner = laws.Planner(replace(PAPER, samples=samples))
    coarse = replace(planner, choices=COARSE)

    def found():
        plan = planner.best(1e21)
        return plan.intervals, planner.of_size(1e9).intervals, planner.compute_ratio(plan, coarse)

    whole = found()
    monkeypatch.setattr(laws.planner, "_MOST", 5 * 129 * 9)
    assert found() == whole


@pytest.mark.parametrize(
    ("name", "options", "sentence"),
    [
        ("clark2022", {}, "clark2022 has no D"),
        ("krajewski2024", {"cost": "flops_magic"}, "there is no cost formula 'flops_magic'"),
        ("krajewski2024", {"limits": laws.Limits(parameters=10)}, "no model of this shape fits"),
        ("krajewski2024", {"choices": laws.Choices(expansion_rates=[0.5])}, "an expansion rate of 0.5 is below K = 1"),
    ],
)
def test_what_cannot_be_planned_is_refused(name, options, sentence):
    with pytest.raises(errors.UserError, match=sentence):
        laws.Planner(laws.published(name), **options).best(1e20)


@pytest.mark.parametrize("flops", [1e11, 1e36, float("nan")])
def test_a_budget_that_trains_nothing_is_refused(flops):
    with pytest.raises(errors.UserError, match="is not a training budget"):
        PLANNER.best(flops)
