"""The kernels that dropless runs on TPU, interpreted on a CPU in the same code, give the oracle's outputs and
gradients."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.model import megablox, moe
from tests.model.oracle import compare
from tests.models import distance

# The oracle keeps all that ask; dropless does not look at the capacity.
SMALL = ("moe.dispatch=dropless", "moe.capacity_factor=8", "train.batch_sequences=8", "moe.expansion_rate=4")


@pytest.fixture(autouse=True)
def _kernels(monkeypatch):
    monkeypatch.setattr(moe, "has_kernels", lambda mesh: True)


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("moe.granularity=1", "data.sequence_length=13"),  # one choice, an odd number of rows
        ("moe.active_rate=4", "model.activation=swiglu", "moe.softmax=after_top_k"),  # every expert
    ],
)
def test_the_kernels_are_the_oracle(overrides):
    assert compare((*SMALL, *overrides))[0]["dropped_fraction"] == 0


@pytest.mark.parametrize(("data", "expert"), [(2, 1), (2, 2)])
def test_the_kernels_on_several_devices_are_the_oracle(data, expert):
    compare(SMALL, data=data, expert=expert)


@pytest.mark.parametrize(("kind", "expert"), [("one expert", 2), ("empty expert", 1)])
def test_the_kernels_on_skewed_routing_are_the_oracle(kind, expert):
    """All to one expert leaves a device of two without a single row."""
    _, (params, _) = compare((*SMALL, "moe.expansion_rate=8", "moe.granularity=1"), kind, expert=expert)
    empty = [0, 1, 2, 4, 5, 6, 7] if kind == "one expert" else [2]
    assert np.all(params["w_in_ExdxF"][empty] == 0) and np.all(params["w_out_Exfxd"][empty] == 0)


@pytest.mark.parametrize(
    ("loads", "k", "n", "tile"),
    [
        ((0, 0, 0), 48, 16, 128),
        ((5, 0, 0), 48, 16, 128),
        ((100, 0, 28), 24, 600, 256),
        ((40, 130, 86), 600, 24, 128),
    ],
)
def test_a_product_is_that_of_each_group(loads, k, n, tile):
    """Sides that no tile divides, tails, empty groups; NaN in the rows past the last reach nothing."""
    R, E = 256, len(loads)
    filled = sum(loads)
    rows = jax.random.normal(jax.random.key(0), (R, k)).at[filled:].set(jnp.nan)
    w = jax.random.normal(jax.random.key(1), (E, k, n))
    seen = jax.random.normal(jax.random.key(2), (R, n)).at[filled:].set(0)
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]).reshape(1, 1, 1), ("replica", "data", "expert"))

    def mine(rows, w):
        return megablox._product(mesh, tile, True, rows, w, jnp.asarray(loads, jnp.int32))

    out, vjp = jax.jit(lambda *a: jax.vjp(mine, *a))(rows, w)
    d_rows, d_w = vjp(seen)
    expert = np.repeat(np.arange(E), loads)
    rows, w, seen = (np.asarray(a, np.float64) for a in (rows[:filled], w, seen[:filled]))
    assert not np.any(out[filled:]) and not np.any(d_rows[filled:])
    assert distance(np.asarray(out[:filled]), np.einsum("rk,rkn->rn", rows, w[expert])) < 1e-5
    assert distance(np.asarray(d_rows[:filled]), np.einsum("rn,rkn->rk", seen, w[expert])) < 1e-5
    for e in range(E):
        assert distance(np.asarray(d_w[e]), rows[expert == e].T @ seen[expert == e]) < 1e-5


@pytest.mark.parametrize(("assignments", "n_experts", "rows"), [(64, 64, 128), (64 * 300, 64, 256), (10**6, 8, 512)])
def test_tiles_follow_the_rows_of_an_expert(assignments, n_experts, rows):
    assert megablox.tile_rows(assignments, n_experts) == rows
