"""The time that a sweep says is left."""

import pytest

from moe_jax.sweep.launchers.remaining import seconds_left


def test_a_job_takes_its_start_and_then_its_flops():
    ended = [(flops, 10 + 2 * flops) for flops in (1.0, 5.0, 30.0)]
    assert seconds_left(ended, [(100.0, 1.0)], 1) == pytest.approx(210)
    assert seconds_left(ended, [(100.0, 0.25)], 1) == pytest.approx(50)  # it has begun: its start is behind it
    assert seconds_left(ended, [(100.0, 1.0)] * 6, 2) == pytest.approx(630)
    assert seconds_left(ended, [(100.0, 1.0)], 8) == pytest.approx(210)  # one job is in one place only


def test_neither_part_is_negative():
    assert seconds_left([(1.0, 9.0), (2.0, 3.0)], [(100.0, 1.0)], 1) == pytest.approx(6)  # the first one compiled
    assert seconds_left([(1.0, 1.0), (2.0, 8.0)], [(10.0, 1.0)], 1) == pytest.approx(34)  # 17 / 5 a FLOP


def test_jobs_of_one_size_are_taken_in_proportion():
    assert seconds_left([(2.0, 4.0)], [(6.0, 1.0)], 1) == pytest.approx(12)
    assert seconds_left([(2.0, 4.0), (2.0, 6.0)], [(6.0, 1.0)], 1) == pytest.approx(15)


def test_nothing_is_left_of_nothing():
    assert seconds_left([(2.0, 4.0)], [], 2) == 0
