"""Laws of the best rate and batch: published values, the best value of a cell, and planted constants found again."""

import math

import numpy as np
import pandas as pd
import pytest

from moe_jax import errors, laws
from tests.planted_laws import QUICK

NAMES = [name for name, form in laws.FORMS.items() if form.quantity != laws.LOSS]
AXES = {
    "N": [1e7, 4e7, 2e8, 8e8],
    "D": [1e9, 6e9, 3e10],
    "G": [1, 4, 16],
    "E": [1, 8, 64],
    "d": [256, 512, 1024, 2048],
    "B": [6.4e4, 2.56e5],
    "C": [1e17, 1e18, 1e19, 1e20, 1e21],
}
PLANTED = {"a": 2.0, "b": -0.4, "c": 0.2, "e": -0.3}


def planted(form):
    """The coefficients of a planted law: exponents of either sign; batches grow."""
    signs = {"b": 0.4} if form.quantity == "batch_tokens" else {}
    return {name: (PLANTED | signs)[name] for name in form.names}


FACTORS = 2.0 ** np.arange(-3, 4)


def sweep(form, noise=0.0, seeds=1, factors=FACTORS, off=0.2):
    """Runs of every cell over values tried on a grid around the planted best, which lies `off` steps beside it.

    A loss is a parabola in the logarithm of the value."""
    rng, truth, rows = np.random.default_rng(0), planted(form), []
    grids = np.meshgrid(*(AXES[s] for s in form.symbols), indexing="ij")
    for cell in zip(*(g.ravel() for g in grids), strict=True):
        axes = dict(zip(form.symbols, cell, strict=True))
        best = float(form.loss(axes, truth))
        for tried in best * 2**off * factors:
            for seed in range(seeds):
                loss = 2.5 + 0.05 * math.log(tried / best) ** 2 + noise * rng.standard_normal()
                row = {column: axes[s] for s, column in form.columns.items()}
                rows.append({**row, form.quantity: tried, "seed": seed, "eval_loss": loss})
    return pd.DataFrame(rows)


@pytest.mark.parametrize("name", NAMES)
def test_a_planted_law_of_rates_is_found_again(name):
    form = laws.get(name)
    fitted = laws.fit(sweep(form), law=name, start=8, resampling=QUICK)
    assert fitted.law.coefficients == pytest.approx(planted(form), rel=1e-4)
    assert fitted.law.errors["rmse_fit"] < 1e-6
    cells = math.prod(len(AXES[s]) for s in form.symbols)
    assert fitted.law.data.n_fit == cells and len(fitted.rows) == cells
    assert fitted.law.method.objective["huber"] == "inf" and fitted.law.method.objective["space"] == "log"


@pytest.mark.parametrize("name", NAMES)
def test_the_printed_formula_gives_the_published_value(name):
    form = laws.get(name)
    for where in form.published:
        law, at = laws.published(name, where), {s: float(AXES[s][1]) for s in form.symbols}
        printed = eval(form.formula.replace("^", "**"), {"__builtins__": {}}, {**at, **law.coefficients})  # noqa: S307
        assert law.value_at(at) == pytest.approx(printed, rel=1e-12)


@pytest.mark.parametrize(
    ("law", "at", "value"),
    [
        ("step_law_lr", {"N": 1e9, "D": 1e11}, 1.79 * 1e9**-0.713 * 1e11**0.307),
        ("step_law_batch", {"D": 1e11}, 0.58 * 1e11**0.571),
        ("joint_moe2025_lr", {"N": 3_145_728, "E": 64}, 8.5e-3),  # as configs/lr_sweep.py:rule, to two digits
        # 1.63 · D^−.2813 · d^−.3678 · √B with B = 64 sequences
        ("marin_lr:v16, E=64", {"D": 1e10, "d": 1024, "B": 64 * 4096}, 1.63 * 1e10**-0.2813 * 1024**-0.3678 * 8),
        ("flops_lr:deepseek2024", {"C": 1e20}, 0.3118 * 1e20**-0.125),
        ("flops_batch", {"C": 1e20}, 0.0694 * 1e20**0.3644),
    ],
)
def test_published_laws_of_rates(law, at, value):
    assert laws.find(law, quantity=None).value_at(at) == pytest.approx(value, rel=6e-3)


def test_intervals_of_a_law_of_rates_hold_the_planted_constants_as_often_as_they_say():
    """24 sweeps with noisy losses, 80% intervals: fewer than 60% or more than 95% of hits is beyond chance."""
    form, hits = laws.get("step_law_lr"), []
    clean = sweep(form, factors=2.0 ** np.arange(-2, 3))
    for seed in range(24):
        noise = 2e-3 * np.random.default_rng(seed).standard_normal(len(clean))
        table = clean.assign(eval_loss=clean["eval_loss"] + noise)
        law = laws.fit(table, law=form.name, start=4, resampling=laws.Resampling(samples=60)).law
        hits += [low <= planted(form)[k] <= high for k, (low, high) in law.intervals.items()]
    assert 0.6 < np.mean(hits) < 0.95


def test_cells_at_an_edge_of_the_values_tried_are_left_out_and_named():
    form = laws.get("step_law_lr")
    table = sweep(form)
    table["name"] = [f"r{i}" for i in range(len(table))]
    small, large = table["tokens"] == 1e9, table["n_total_nonemb"] == 8e8
    rates = table["learning_rate"] / planted_best(form, table)
    kept = ~(small & ~large & (rates > 0.9)) & ~(large & ~small & (rates < 1.3))
    fitted = laws.fit(table[kept], law="step_law_lr", start=8, resampling=QUICK)
    said = " ".join(fitted.law.data.notes)
    assert "3 cells left out: the lowest loss is at the largest learning_rate tried (r" in said
    assert "2 cells left out: the lowest loss is at the smallest learning_rate tried (r" in said
    assert "try larger ones" in said and "7 cells of 12 with a best learning_rate" in said
    assert fitted.law.coefficients == pytest.approx(planted(form), rel=1e-4)
    few = table[(rates > 0.3) & (rates < 1.3)]
    with pytest.raises(errors.UserError, match=r"no cell encloses its best learning_rate.*needs three values"):
        laws.fit(few, law="step_law_lr")


def planted_best(form, table):
    return form.loss({s: table[c].to_numpy() for s, c in form.columns.items()}, planted(form))


def test_seeds_are_averaged_and_the_other_tuned_column_counts_with_its_lowest_loss():
    form = laws.get("step_law_lr")
    table = sweep(form, seeds=2)
    wild = 0.3 * (2 * table["seed"] - 1) * np.cos(np.arange(len(table)) // 2)  # cancels in the mean of two seeds
    fitted = laws.fit(table.assign(eval_loss=table["eval_loss"] + wild), law=form.name, start=8, resampling=QUICK)
    assert fitted.law.coefficients == pytest.approx(planted(form), rel=1e-4)
    worse = table.assign(batch_tokens=2e5, eval_loss=table["eval_loss"] + 0.1, learning_rate=table["learning_rate"] * 1)
    both = pd.concat([table.assign(batch_tokens=1e5), worse])
    fitted = laws.fit(both, law=form.name, start=8, resampling=QUICK)
    assert fitted.law.coefficients == pytest.approx(planted(form), rel=1e-4)
    assert fitted.law.data.n_fit == 12
    assert any("counts with its lowest loss over batch_tokens" in note for note in fitted.law.data.notes)


def test_losses_in_few_digits_tie_within_a_cell_and_that_is_no_note():
    table = sweep(laws.get("flops_lr")).round({"eval_loss": 1})
    assert table.duplicated(["train_flops", "eval_loss"]).any()
    notes = laws.fit(table, law="flops_lr", start=2, resampling=QUICK).law.data.notes
    assert not any("another's axes and loss" in note for note in notes)


def test_runs_of_another_context_are_another_cell():
    """Runs of G = 8 at a third of the rate: their curves are not mixed with those of G = 1."""
    form = laws.get("step_law_lr")
    table = sweep(form).assign(granularity=1)
    other = table.assign(granularity=8, learning_rate=table["learning_rate"] / 3)
    law = laws.fit(pd.concat([table, other]), law="granular_lr", start=8, resampling=QUICK).law
    assert law.coefficients["e"] == pytest.approx(math.log(1 / 3) / math.log(8), rel=1e-3)
    law = laws.fit(pd.concat([table, other]), law=form.name, start=8, resampling=QUICK).law
    assert law.data.n_fit == 24 and law.coefficients["b"] == pytest.approx(planted(form)["b"], rel=1e-3)
    assert any("granularity (1, 8)" in note for note in law.data.notes)
    assert law.errors["rmse_fit"] == pytest.approx(math.log(3) / 2, rel=1e-3)


def test_a_law_of_rates_is_kept_and_is_no_law_of_losses(tmp_path):
    form = laws.get("step_law_lr")
    table = sweep(form, noise=1e-3)
    fitted = laws.fit(table, law=form.name, start=8, resampling=laws.Resampling(samples=20))
    fitted.law.save(tmp_path / "rates.json")
    law = laws.load(tmp_path / "rates.json")
    assert law.form.quantity == "learning_rate" and law.coefficients == fitted.law.coefficients
    value, low, high = law.predict({"N": 1e8, "D": 1e10})
    assert low < value < high and low > 0
    _, wide, _ = law.predict({"N": 1e8, "D": 1e10}, residual=True)
    assert 0 < wide < value
    again, held_out = laws.rows_of(law, table)
    np.testing.assert_array_equal(again.losses, fitted.rows.losses)
    assert not held_out.any()
    uses = (
        lambda: law.loss_at({"N": 1e8, "D": 1e10}),
        lambda: laws.find(str(tmp_path / "rates.json")),
        lambda: laws.Planner(law),
    )
    for use in uses:
        with pytest.raises(errors.UserError, match="step_law_lr gives a learning rate, where a loss, nats per token"):
            use()
    with pytest.raises(errors.UserError, match="keeps one run of each cell"):
        laws.fit(table, law=form.name, best_of="learning_rate")
    for of_losses in (laws.Objective(one_sided=0.3), laws.Objective(weight_exponent=30)):
        with pytest.raises(errors.UserError, match="by their loss, and step_law_lr gives a learning rate"):
            laws.fit(table, law=form.name, objective=of_losses)
    with pytest.raises(errors.UserError, match="fitted to its best values; --columns learning_rate=…"):
        laws.fit(table.drop(columns="learning_rate"), law=form.name)


def test_cross_validation_of_a_law_of_rates_is_in_logarithms():
    form = laws.get("step_law_lr")
    fitted = laws.fit(sweep(form, noise=2e-3), law=form.name, start=8, resampling=QUICK)
    assert fitted.law.errors["rmse_fit"] < laws.cross_validate(fitted, "4").rmse < 3 * fitted.law.errors["rmse_fit"]


def test_a_form_of_an_unknown_quantity_is_refused():
    parts = {"formula": "", "source": "", "columns": {"D": "tokens"}, "coefficients": {"a": laws.positive(1, 2)}}
    with pytest.raises(ValueError, match="quantity is 'rate', must be one of loss, learning_rate, batch_tokens"):
        laws.declare(**parts, quantity="rate")(lambda D, a: a)
