import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.data.permutation import permute

SEEDS = st.integers(-(2**63), 2**64)


@settings(deadline=None)
@given(n=st.integers(1, 3000), seed=SEEDS, epoch=st.integers(0, 10**6))
def test_is_a_bijection_for_every_n(n, seed, epoch):
    assert sorted(permute(np.arange(n), n, seed, epoch).tolist()) == list(range(n))


@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 2**16 - 1, 2**16, 2**16 + 1, 99_991])
def test_is_a_bijection_at_the_edges(n):
    assert (np.bincount(permute(np.arange(n), n, 7, 0), minlength=n) == 1).all()


@settings(deadline=None)
@given(n=st.integers(10, 10**12), seed=SEEDS, data=st.data())
def test_a_place_alone_goes_where_it_goes_among_others(n, seed, data):
    places = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=1, max_size=20)))
    together = permute(places, n, seed, 3)
    assert ((together >= 0) & (together < n)).all()
    assert [int(permute(p[None], n, seed, 3)[0]) for p in places] == together.tolist()


def test_all_orders_of_three_occur_about_equally_often():
    orders = [tuple(permute(np.arange(3), 3, seed, 0).tolist()) for seed in range(3000)]
    counts = [orders.count(order) for order in set(orders)]
    assert len(counts) == 6
    assert min(counts) > 400  # 500 expected, standard deviation 20


def test_looks_random_at_scale():
    n = 10**12 + 39
    places = np.arange(100_000)
    to = permute(places, n, 0, 0) / n
    assert abs(to.mean() - 0.5) < 0.005  # standard error 0.0009
    assert abs(np.corrcoef(to[:-1], to[1:])[0, 1]) < 0.02  # standard error 0.003
    counts = np.histogram(to, 64, (0, 1))[0]
    assert ((counts - counts.mean()) ** 2 / counts.mean()).sum() < 130  # chi-square with 63 degrees


def test_seeds_and_epochs_give_unrelated_orders():
    n = 10_007
    orders = [permute(np.arange(n), n, seed, epoch) for seed, epoch in [(0, 0), (0, 1), (1, 0), (1, 1)]]
    for i, a in enumerate(orders):
        for b in orders[:i]:
            assert (a == b).sum() < 10  # 1 expected


def test_a_place_outside_is_refused():
    for place in (-1, 5):
        with pytest.raises(ValueError, match=r"range\(5\)"):
            permute(np.array([place]), 5, 0, 0)
