"""`slots` gives what the oracle `dense` gives, forward and in every gradient, however the tokens are routed."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from moe_jax.model import dispatch
from moe_jax.model.expert_load import max_over_mean
from tests.model.oracle import compare, layer
from tests.models import EXPERT_CHOICE, config

ROUTERS = {
    "token choice": (),
    "softmax after top-k": ("moe.softmax=after_top_k",),
    "k = 1": ("moe.granularity=1",),
    "k = n_experts": ("moe.active_rate=8",),
    "heavy overflow": ("moe.capacity_factor=0.5",),
    "groups of 4 sequences": ("moe.group_sequences=4",),
    "gated": ("model.activation=swiglu",),
    "an odd number of tokens": ("data.sequence_length=13", "moe.capacity_factor=1.1"),
    "batch-prioritised, a shared expert": (
        "moe.capacity_factor=0.5", "moe.batch_prioritised=True", "moe.shared_experts=1",
    ),
    "deepseek's": (
        "moe.active_rate=1.5", "moe.score=sigmoid", "moe.renormalise=True", "moe.routed_scale=2.5",
        "moe.expert_groups=4", "moe.chosen_groups=2", "moe.shared_experts=1", "moe.shared_gate=True",
    ),
    "expert choice": EXPERT_CHOICE,
    "expert choice over tokens": (*EXPERT_CHOICE, "moe.softmax=over_tokens"),
    "expert choice, all of an odd number of groups": (
        *EXPERT_CHOICE, "moe.active_rate=8", "data.sequence_length=13", "moe.group_sequences=16",
    ),
}  # fmt: skip


@pytest.mark.parametrize("overrides", ROUTERS.values(), ids=ROUTERS)
def test_slots_are_the_oracle(overrides):
    compare(overrides)


@pytest.mark.parametrize("router", ["heavy overflow", "expert choice"])
def test_slots_are_the_oracle_where_rows_are_not_streamed(router, monkeypatch):
    """As on an accelerator that holds all experts."""
    slots = dispatch.slots
    monkeypatch.setattr(dispatch, "slots", lambda *a, stream: slots(*a, stream=False))
    compare(ROUTERS[router])


def test_all_tokens_to_one_expert():
    statistics, (params, _) = compare(("moe.granularity=1",), "one expert")
    assert max_over_mean(statistics["load_E"]) == pytest.approx(8)
    assert statistics["dropped_fraction"] == pytest.approx(1 - 3 / 16)  # ceil(1.25 · 16 / 8) of 16 tokens are kept
    assert np.all(params["w_in_ExdxF"][[0, 1, 2, 4, 5, 6, 7]] == 0) and np.any(params["w_in_ExdxF"][3])


def test_an_empty_expert_gets_no_gradient():
    _, (params, _) = compare((), "empty expert")
    assert np.all(params["w_in_ExdxF"][2] == 0) and np.all(params["w_out_Exfxd"][2] == 0)


@pytest.mark.parametrize("router", ["token choice", "heavy overflow", "expert choice"])
@pytest.mark.parametrize(("data", "expert"), [(2, 4), (1, 8)])
def test_slots_on_eight_devices_are_the_oracle(router, data, expert):
    """Expert choice in groups of 8 sequences where a device holds 2: exchanged for positions, over `expert` or over
    both."""
    compare(ROUTERS[router], data=data, expert=expert)


@pytest.mark.slow
@pytest.mark.parametrize("dispatch", [("moe.dispatch=slots",), ("moe.dispatch=dropless", "moe.capacity_factor=16")])
@pytest.mark.parametrize("kind", ["one expert", "empty expert"])
@pytest.mark.parametrize("router", ["softmax after top-k", "k = n_experts", "gated", "an odd number of tokens"])
def test_uneven_loads_are_the_oracle(router, kind, dispatch):
    compare((*ROUTERS[router], *dispatch), kind)


@pytest.mark.slow
@pytest.mark.parametrize("dispatch", [("moe.dispatch=slots",), ("moe.dispatch=dropless", "moe.capacity_factor=64")])
def test_4096_experts_of_width_one_are_the_oracle(dispatch):
    """4 d / 64 = 1, where d is 16; a token takes 64 of them, a device holds 512."""
    many = ("moe.expansion_rate=64", "moe.granularity=64", "moe.capacity_factor=5")
    _, (params, _) = compare((*many, *dispatch), expert=8)
    assert params["w_in_ExdxF"].shape == (4096, 16, 1)


@pytest.mark.parametrize("router", ["token choice", "expert choice"])
def test_slots_are_the_oracle_in_bfloat16(router):
    """Weights and activations are rounded to 8 bits, and the two ways add up in different orders."""
    compare((*ROUTERS[router], "model.compute_dtype=bfloat16"), bound=2e-2)


def test_nothing_is_dropped_where_there_is_room():
    assert compare(("moe.capacity_factor=8",))[0]["dropped_fraction"] == 0


@pytest.mark.parametrize(
    "overrides",
    [(), ("moe.batch_prioritised=True",), ("moe.group_sequences=4",)],
    ids=["in order", "batch-prioritised", "groups of several sequences"],
)
def test_dropping_is_causal_in_order_and_in_groups_of_one_sequence(overrides):
    """Other tokens after the tenth change no output up to it, except where the ones that ask most go first, or where
    the next sequence asks after them."""
    c = config("moe.capacity_factor=0.5", *overrides)
    graph, state = layer(c, 1, 1)
    given = jax.random.normal(jax.random.key(1), (16, 16, 16))
    changed = given.at[:, 10:].multiply(-3.0)
    before, after = (jax.jit(lambda x: nnx.merge(graph, state)(x)[0])(x) for x in (given, changed))
    assert np.array_equal(before[:, :10], after[:, :10]) == (not overrides)


@pytest.mark.parametrize("gated", [False, True])
def test_shared_experts_serve_every_token(gated):
    c = config("moe.shared_experts=2", "moe.output_norm=False", f"moe.shared_gate={gated}")
    x = jax.random.normal(jax.random.key(1), (16, 16, 16))
    moe, alone = (nnx.merge(*layer(c, 1, 1)) for c in (c, config()))  # the same key, so the same routed experts
    shared = jax.nn.relu(x @ moe.shared.w_in_dxF[...]) @ moe.shared.w_out_fxd[...]
    if gated:
        shared = shared / (1 + jnp.exp(-(x @ moe.shared_gate_d[...])))[..., None]
    assert moe.shared.w_in_dxF.shape == (16, 2 * c.moe.d_expert)
    with_shared, routed = jax.jit(lambda x: (moe(x)[0], alone(x)[0]))(x)
    np.testing.assert_allclose(with_shared, routed + shared, atol=1e-6)
