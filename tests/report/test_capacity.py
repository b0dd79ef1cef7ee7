"""What dropping costs on the held-out windows is said where it is more than noise, and nowhere else."""

import pytest

from moe_jax.report import capacity

NOTHING = {"status": "done", "eval_loss": 3.0, "eval_loss_capacity": None, "dropped_fraction": 0.0}


def row(name, inflation, dropped=0.1):
    return {
        "name": name, "status": "done", "eval_loss": 3.0, "eval_loss_capacity": 3.0 + inflation,
        "dropped_fraction": dropped, "eval_dropped_fraction": dropped / 2,
    }  # fmt: skip


@pytest.mark.parametrize("rows", [[], [NOTHING], [row("a", 0.1) | {"status": "diverged"}]])
def test_where_both_losses_are_the_same_thing_nothing_is_said(rows):
    assert capacity.sentences(rows, None) == []


def test_without_seeds_five_thousandths_of_a_nat_count():
    rows = [row("a", 0.004), row("b", 0.0051, 0.2), row("c", -0.002), NOTHING]
    first, second = capacity.sentences(rows, None)
    assert "are -0.0020 to +0.0051 nats above" in first
    assert "Dropped were 10.0% to 20.0% of the assignments in training and 5.0% to 10.0% in evaluation." in first
    assert second == (
        "In 1 run of 3 the two losses differ by more than 0.005 nats (no seeds were run): b +0.0051 with 10.0% dropped."
    )
    assert "In no run do the two losses differ" in capacity.sentences(rows[:1], None)[1]


def test_with_seeds_their_noise_counts():
    rows = [row("a", 0.02), row("b", 0.03), row("c", -0.04)]
    assert (
        "In no run" in capacity.sentences(rows, 0.05)[1]
        and "the noise of a seed, 0.0500 nats" in (capacity.sentences(rows, 0.05)[1])
    )
    said = capacity.sentences(rows, 0.025)[1]
    assert said.startswith("In 2 runs of 3") and said.index("c -0.0400") < said.index("b +0.0300") and "a +" not in said


def test_few_of_many_runs_are_named():
    said = capacity.sentences([row(f"run{i}", 0.01 + i) for i in range(20)], None)[1]
    assert said.startswith("In 20 runs of 20") and said.count("dropped") == 6 and said.endswith(", ….")
