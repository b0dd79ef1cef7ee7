"""The runs picked to be trained next narrow the optimum more than others do, as the fit with them shows."""

import numpy as np
import pytest

from moe_jax import errors, laws

TRUTH = laws.published("chinchilla", "besiroglu2024")
BUDGET, NOISE = 1e22, 0.004
RESAMPLING = laws.Resampling(samples=100)


def table(N, D, seed):
    loss = TRUTH.loss_at({"N": N, "D": D})
    return {
        "n_total": N,
        "tokens": D,
        "eval_loss": loss * np.exp(NOISE * np.random.default_rng(seed).standard_normal(len(N))),
    }


def runs(seed=0):
    N, D = (a.ravel() for a in np.meshgrid(np.geomspace(1e8, 2e9, 5), np.geomspace(2e9, 4e10, 5)))
    return table(N, D, seed)


def planner(law):
    return laws.Planner(law)


def width(law):
    return float(np.subtract(*np.log(planner(law).best(BUDGET).intervals["n_total"][::-1])))


FITTED = laws.fit(runs(), law="chinchilla", start=8, resampling=RESAMPLING).law
# A small cheap run, the same at many times its tokens, a large one, and a replicate in the middle of the design.
CELLS = {"N": np.array([1e8, 1e8, 8e9, 4.5e8]), "D": np.array([2e9, 6e11, 4e10, 9e9])}
FLOPS = 6 * CELLS["N"] * CELLS["D"]


def with_run(i, seed):
    more, before = table(CELLS["N"][[i]], CELLS["D"][[i]], seed), runs()
    both = {k: np.r_[before[k], more[k]] for k in before}
    return laws.fit(both, law="chinchilla", start=8, resampling=RESAMPLING).law


def test_a_pick_narrows_the_interval_more_than_a_poor_candidate_does():
    found = laws.next_runs(planner(FITTED), [BUDGET], CELLS, np.ones(4), picks=1)
    best, poor = found[0].index, max(found, key=lambda run: run.alone).index
    shares = {i: np.mean([width(with_run(i, seed)) for seed in (1, 2)]) / width(FITTED) for i in (best, poor)}
    assert shares[best] < 0.9 < shares[poor]
    assert found[0].alone == found[0].together == min(run.alone for run in found)


def test_what_a_run_costs_counts():
    cheap = np.where(np.arange(4) == 3, 1.0, 1e9)
    assert laws.next_runs(planner(FITTED), [BUDGET], CELLS, cheap, picks=1)[0].index == 3


def test_picks_are_made_given_those_before():
    """A cell twice in the list is worth less the second time, and each pick narrows what was left."""
    twice = {k: v[[2, 2, 1]] for k, v in CELLS.items()}
    found = laws.next_runs(planner(FITTED), [BUDGET], twice, np.ones(3), picks=3)
    together = [run.together for run in found]
    assert together == sorted(together, reverse=True) and together[0] < 1
    same = [i for i, run in enumerate(found) if run.index in (0, 1)]
    assert abs(found[same[0]].alone - found[same[1]].alone) < 1e-9
    if same == [0, 1]:
        assert together[1] / together[0] > together[0]


def test_a_law_without_samples_is_refused():
    with pytest.raises(errors.UserError, match="has no bootstrap samples"):
        laws.next_runs(laws.Planner(TRUTH), [BUDGET], CELLS, FLOPS)
