"""The fields of published models' shapes: what follows from them, and the combinations that are refused."""

import dataclasses

import pytest

from moe_jax.config import counts, identity
from moe_jax.errors import UserError
from tests.models import config

FINE = ("moe.granularity=4", "moe.active_rate=2")  # 32 experts, of which a token takes 8


def test_heads_follow_from_the_width_and_may_be_given():
    m = config("model.d_model=64", "model.n_heads=4").model
    assert (m.head_dim, m.n_kv_heads, m.attention_width) == (16, 4, 64)
    m = config("model.d_model=64", "model.n_heads=6", "model.head_dim=32", "model.n_kv_heads=2").model
    assert (m.head_dim, m.n_kv_heads, m.attention_width) == (32, 2, 192)
    # What is said and what follows are the same run.
    said = config("model.d_model=64", "model.n_heads=4", "model.head_dim=16", "model.n_kv_heads=4")
    follows = config("model.d_model=64", "model.n_heads=4")
    assert identity.config_hash(said, "store", 259) == identity.config_hash(follows, "store", 259)


@pytest.mark.parametrize(
    "override",
    [
        "model.n_kv_heads=1", "model.head_dim=16", "model.norm_eps=1e-6", "model.rope_theta=5e5", "model.qk_norm=full",
        "model.tied_embeddings=True", "moe.score=sigmoid", "moe.renormalise=True", "moe.routed_scale=2.5",
        "moe.expert_groups=4", "moe.shared_gate=True",
    ],
)  # fmt: skip
def test_every_field_is_another_run(override):
    given = (*FINE, "moe.shared_experts=1")
    hashes = {identity.config_hash(config(*o), "store", 259) for o in (given, (*given, override))}
    assert len(hashes) == 2


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (("model.n_heads=3",), "model.n_heads = 3: must divide model.d_model = 16, unless model.head_dim is given"),
        (("model.n_heads=4", "model.n_kv_heads=3"), "model.n_kv_heads = 3: must divide model.n_heads = 4"),
        (("model.n_heads=2", "model.n_kv_heads=4"), "model.n_kv_heads = 4: must divide model.n_heads = 2"),
        (("model.head_dim=7", "model.positions=rope"), "model.head_dim = 7: rope turns pairs, so it must be even"),
        (("model.n_heads=16", "model.positions=rope"), "model.n_heads = 16: rope turns pairs"),
        (("model.head_dim=0",), "model.head_dim = 0: must be above 0"),
        (
            ("model.tied_embeddings=True", "model.readout_init_scale=0.01"),
            "model.readout_init_scale = 0.01: the unembedding is the table of tokens",
        ),
        (("model.norm_eps=0",), "model.norm_eps = 0: must be above 0"),
        (("model.rope_theta=-1",), "model.rope_theta = -1: must be above 0"),
        (("model.qk_norm=True",), "model.qk_norm = True: must be a text"),
        (("model.qk_norm=heads",), "model.qk_norm = 'heads': must be one of 'none', 'head', 'full'"),
        (("moe.score=tanh",), "moe.score = 'tanh': must be one of 'softmax', 'sigmoid'"),
        (("moe.score=sigmoid", "moe.softmax=after_top_k"), "moe.softmax = 'after_top_k': a sigmoid scores every"),
        (("moe.renormalise=True", "moe.softmax=after_top_k"), "moe.renormalise = True: weights add up to 1"),
        (("moe.renormalise=True", "moe.granularity=1"), "moe.renormalise = True: with top_k = 1"),
        (("moe.routed_scale=0",), "moe.routed_scale = 0: must be above 0"),
        (("moe.chosen_groups=2",), "moe.chosen_groups = 2: must be at most moe.expert_groups = 1"),
        ((*FINE, "moe.expert_groups=5"), "moe.expert_groups = 5: must divide the 32 experts"),
        ((*FINE, "moe.expert_groups=32"), "moe.expert_groups = 32: leaves 1 expert a group"),
        ((*FINE, "moe.expert_groups=8"), r"moe.chosen_groups = 1: have 4 experts \(32 / 8 a group\), fewer than"),
        (("moe.shared_gate=True",), "moe.shared_gate = True: .* moe.shared_experts = 0"),
    ],
)  # fmt: skip
def test_what_cannot_be_is_refused(overrides, words):
    with pytest.raises(UserError, match=f"config.{words}"):
        config(*overrides)


@pytest.mark.parametrize(
    "override",
    ["moe.score=sigmoid", "moe.renormalise=True", "moe.routed_scale=2", "moe.expert_groups=4"],
)
def test_expert_choice_has_no_weights_of_a_tokens_experts(override):
    choice = ("moe.router=expert_choice", "moe.softmax=over_experts", "moe.load_balance_loss_weight=0")
    with pytest.raises(UserError, match=rf"{override.split('=')[0]} = .*: is for token choice; with expert_choice set"):
        config(*choice, "moe.group_sequences=8", override)


def test_a_deepseek_v3_router_is_a_config():
    """Table of 2412.19437, §4.2: 8 of 256 experts, from 4 of 8 groups, scaled by 2.5."""
    c = config(
        "moe.granularity=16", "moe.expansion_rate=16", "moe.active_rate=0.5", "moe.score=sigmoid",
        "moe.renormalise=True", "moe.routed_scale=2.5", "moe.expert_groups=8", "moe.chosen_groups=4",
        "model.d_ff=256", "data.sequence_length=64",
    )  # fmt: skip
    assert (c.moe.n_experts, c.moe.top_k) == (256, 8)


def dense(*overrides):
    return dataclasses.replace(config("model.d_model=64", "model.n_heads=4", *overrides), moe=None)


def test_fewer_heads_of_keys_and_a_tied_table_cost_less():
    """By hand: 2 · d · Dh · (H + N) of attention, and scores over H · Dh channels."""
    c = dense("model.n_kv_heads=1", "model.head_dim=32")
    standard = dense()
    one, other = (counts.count_parameters(x, 259) for x in (c, standard))
    assert one.n_total_nonemb - other.n_total_nonemb == 2 * (2 * 64 * 32 * 5 - 4 * 64**2)
    flops, others = (counts.count_flops(x, 259) for x in (c, standard))
    more = 6 * (one.n_total_nonemb - other.n_total_nonemb) + 12 * 2 * (128 - 64) * 16
    assert flops.train_flops - others.train_flops == more * flops.tokens

    tied = dense("model.tied_embeddings=True")
    once = counts.count_parameters(tied, 259)
    assert other.n_embedding - once.n_embedding == other.n_total - once.n_total == 64 * 259
    # The unembedding is a product all the same.
    assert counts.count_flops(tied, 259).train_flops == others.train_flops
