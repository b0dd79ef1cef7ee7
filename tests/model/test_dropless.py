"""`dropless` gives what the oracle `dense` gives with room for all, however tokens are routed, and drops nothing."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.model import dispatch
from moe_jax.model.expert_load import max_over_mean
from tests.model.oracle import compare
from tests.models import EXPERT_CHOICE, config

ROOM = ("moe.dispatch=dropless", "moe.capacity_factor=8")  # the oracle keeps all that ask; dropless does not look at it
ROUTERS = {
    "token choice": (),
    "k = 1, an odd number of tokens": ("moe.granularity=1", "data.sequence_length=13"),
    "k = n_experts, gated": ("moe.active_rate=8", "model.activation=swiglu"),
    "softmax after top-k": ("moe.softmax=after_top_k",),
}


@pytest.mark.parametrize("overrides", ROUTERS.values(), ids=ROUTERS)
def test_dropless_is_the_oracle(overrides):
    assert compare((*ROOM, *overrides))[0]["dropped_fraction"] == 0


def test_dropless_is_the_oracle_as_on_an_accelerator(monkeypatch):
    dropless = dispatch.dropless
    monkeypatch.setattr(dispatch, "dropless", lambda *a: dropless(*a[:-1], on_cpu=False))
    compare(ROOM)


def test_dropless_is_the_oracle_in_many_chunks(monkeypatch):
    """Of two blocks, the last of them partly empty."""
    monkeypatch.setattr(dispatch, "CHUNK_ROWS", 64)
    compare(ROOM)


def test_dropless_is_the_oracle_in_bfloat16():
    """Weights and activations are rounded to 8 bits, and the two ways add up in different orders."""
    compare((*ROOM, "model.compute_dtype=bfloat16"), bound=2e-2)


@pytest.mark.parametrize(("data", "expert"), [(2, 1), (1, 2), (2, 4), (1, 8)])
def test_dropless_on_several_devices_is_the_oracle(data, expert):
    compare(ROOM, data=data, expert=expert)


@pytest.mark.parametrize("expert", [1, 4])
def test_all_tokens_to_one_expert(expert):
    statistics, (params, _) = compare((*ROOM, "moe.granularity=1"), "one expert", expert=expert)
    assert max_over_mean(statistics["load_E"]) == pytest.approx(8) and statistics["dropped_fraction"] == 0
    assert np.all(params["w_in_ExdxF"][[0, 1, 2, 4, 5, 6, 7]] == 0) and np.any(params["w_in_ExdxF"][3])


def test_an_empty_expert_gets_no_gradient():
    _, (params, _) = compare(ROOM, "empty expert")
    assert np.all(params["w_in_ExdxF"][2] == 0) and np.all(params["w_out_Exfxd"][2] == 0)


@pytest.mark.parametrize("rows", [8, 32])
@pytest.mark.parametrize("n_experts", [1, 5, 64])
def test_blocks_hold_every_assignment_once(n_experts, rows):
    """Experts of n_experts are another device's."""
    blocks = jax.jit(dispatch._blocks, static_argnums=(1, 2))
    for seed, spread in ((0, n_experts + 1), (1, 1), (2, n_experts // 2 + 1)):
        expert_A = np.random.default_rng(seed).integers(0, spread, 100)
        assignment_BxS, expert_B, used = map(np.asarray, blocks(jnp.asarray(expert_A, jnp.int32), n_experts, rows))
        filled_BxS = assignment_BxS < 100
        assert np.all(
            expert_A[assignment_BxS[filled_BxS]] == np.broadcast_to(expert_B[:, None], filled_BxS.shape)[filled_BxS]
        )
        assert sorted(assignment_BxS[filled_BxS]) == np.flatnonzero(expert_A < n_experts).tolist()
        assert not filled_BxS[used:].any() and filled_BxS[:used].any(1).all()


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        ((*EXPERT_CHOICE, "moe.dispatch=dropless"), "config.moe.dispatch = 'dropless': expert_choice fills every slot"),
        (("moe.dispatch=dropless", "moe.batch_prioritised=True"), "batch_prioritised = True: decides what is dropped"),
        ((*EXPERT_CHOICE, "moe.batch_prioritised=True"), "batch_prioritised = True: decides what is dropped"),
        (("moe.shared_experts=-1",), "config.moe.shared_experts = -1: must not be below 0"),
    ],
)
def test_what_cannot_be_is_refused(overrides, words):
    with pytest.raises(UserError, match=words):
        config(*overrides)


def test_dropless_needs_no_room():
    assert config("moe.capacity_factor=0.001", "moe.dispatch=dropless").moe.dispatch == "dropless"
