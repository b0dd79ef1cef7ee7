"""The one-sided objective: under-tuned runs lie above the law, and pull it up less."""

import numpy as np
import pytest

from moe_jax import errors, laws
from moe_jax.laws.objective import Problem
from tests.planted_laws import QUICK, grid, planted

FIX = {"c": 0.472}


def test_the_sign():
    """The weight counts where the law lies below the run (a run above the law), not where it lies above."""
    form = laws.get("krajewski2024")
    table, truth = planted("krajewski2024", grid(3, 3), noise=0.0)
    columns = {s: table[c] for s, c in form.columns.items()}
    theta = form.inner(truth.coefficients)[None]
    for space in ("log", "linear"):
        symmetric = laws.Objective(space=space, huber=np.inf)
        for factor, weight in ((1.01, 0.25), (0.99, 1.0)):
            losses = factor * table["eval_loss"]
            whole = Problem(form, columns, losses, symmetric).values(theta)[0]
            asked = Problem(form, columns, losses, symmetric).at(one_sided=0.25).values(theta)[0]
            assert asked == pytest.approx(weight * whole, rel=1e-9)


def test_it_recovers_a_law_from_under_tuned_runs():
    """A third of the runs lie above the law by up to 4%, most at large N, where tuning is dear: the symmetric fit takes
    their excess into the law."""
    table, truth = planted("krajewski2024", grid(4, 4), noise=0.001, seed=1)
    rng = np.random.default_rng(2)
    size = np.log(table["n_total_nonemb"])
    under_tuned = rng.uniform(size=len(size)) < 0.15 + 0.4 * (size - size.min()) / np.ptp(size)
    table["eval_loss"] = table["eval_loss"] * np.where(under_tuned, 1 + rng.uniform(0, 0.04, len(size)), 1)
    free = ("alpha", "beta")

    def misses(one_sided):
        objective = laws.Objective(huber=1e-2, one_sided=one_sided)
        law = laws.fit(table, fix=FIX, start=16, objective=objective, resampling=QUICK).law
        assert law.method.objective["one_sided"] == one_sided
        axes = {k: table[k] for k in truth.form.columns.values()}
        bias = np.mean(law.loss_at(axes) - truth.loss_at(axes))
        return bias, max(abs(law.coefficients[k] / truth.coefficients[k] - 1) for k in free)

    (symmetric_bias, symmetric), (bias, one_sided) = misses(1.0), misses(0.05)
    assert symmetric_bias > 0.005 and abs(bias) < symmetric_bias / 3
    assert one_sided < symmetric / 2


@pytest.mark.parametrize("weight", [0.0, -1.0, 1.5])
def test_other_weights_are_refused(weight):
    with pytest.raises(errors.UserError, match="one_sided is"):
        laws.Objective(one_sided=weight)


def test_law_json_keeps_it():
    objective = laws.Objective(one_sided=0.2)
    assert laws.Objective.from_json(objective.to_json()) == objective
