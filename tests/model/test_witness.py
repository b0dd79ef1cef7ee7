"""A second implementation as witness: transformers, from the same weights, gives the same loss and gradients.

Mixtral is token choice with softmax after top-k (it renormalises the chosen shares, which is the same), OLMoE with
softmax before (norm_topk_prob=False) and QK-norm over all heads together. Its balance loss is k times ours, where one
block routes the batch as one group. Qwen3-MoE renormalises the shares and norms each head's queries and keys, Qwen2-MoE
has a gate on its shared expert. DeepSeek-V3's attention is another, so its router alone is compared.
"""

import warnings

import jax
import numpy as np
import pytest

from moe_jax.model.routers.token_choice import token_choice
from tests.models import VOCABULARY, config, distance, put, trainer, windows

BENCH = "torch and transformers are not installed: pip install '.[bench]'"
LOSS = 1e-6  # relative
GRADIENT = 1e-5  # ‖Δg‖ / ‖g‖
COMMON = (
    "model.activation=swiglu", "model.norm=rmsnorm", "model.positions=rope", "moe.granularity=2", "moe.active_rate=1.5",
    "moe.capacity_factor=100",
)  # fmt: skip


def hugging_face(name, c, **more):
    """The transformers model of config `c`, without its initial weights."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what torch and transformers deprecate of each other is theirs to mend
        pytest.importorskip("torch", reason=BENCH)
        transformers = pytest.importorskip("transformers", reason=BENCH)
        model = getattr(transformers, f"{name}ForCausalLM")
        m = c.model
        return model(
            model.config_class(
                vocab_size=VOCABULARY,
                hidden_size=m.d_model,
                intermediate_size=c.moe.d_expert,
                num_hidden_layers=m.n_layers,
                num_attention_heads=m.n_heads,
                num_key_value_heads=m.n_kv_heads,
                max_position_embeddings=c.data.sequence_length,
                rms_norm_eps=m.norm_eps,
                rope_parameters={"rope_type": "default", "rope_theta": m.rope_theta},
                num_experts_per_tok=c.moe.top_k,
                tie_word_embeddings=m.tied_embeddings,
                pad_token_id=None,
                **more,
            )
        )


def theirs(params):
    """Our parameters, or their gradients, under transformers' names and in its shapes: (out, in), gate beside up."""
    blocks, attention, moe = params["blocks"], params["blocks"]["attention"], params["blocks"]["moe"]
    d = params["tokens_Vxd"].shape[1]
    named = {
        "model.embed_tokens.weight": params["tokens_Vxd"],
        "model.norm.weight": params["norm"]["scale"],
    }
    if "head_dxV" in params:
        named["lm_head.weight"] = params["head_dxV"].T
    for layer in range(moe["router_dxE"].shape[0]):
        of_layer = {
            "input_layernorm.weight": blocks["attention_norm"]["scale"][layer],
            "post_attention_layernorm.weight": blocks["ff_norm"]["scale"][layer],
            "self_attn.o_proj.weight": attention["w_o_HxDhxd"][layer].reshape(-1, d).T,
            "mlp.gate.weight": moe["router_dxE"][layer].T,
            "mlp.experts.gate_up_proj": np.concatenate(np.split(moe["w_in_ExdxF"][layer], 2, 2)[::-1], 2).swapaxes(
                1, 2
            ),
            "mlp.experts.down_proj": moe["w_out_Exfxd"][layer].swapaxes(1, 2),
        }
        for x in "qkv":
            w = attention[f"w_{x}_dx{'H' if x == 'q' else 'N'}xDh"][layer]
            of_layer[f"self_attn.{x}_proj.weight"] = w.reshape(d, -1).T
        for x in "qk":
            if f"{x}_norm" in attention:
                of_layer[f"self_attn.{x}_norm.weight"] = attention[f"{x}_norm"]["scale"][layer]
        if "shared" in moe:
            h, gate = np.split(moe["shared"]["w_in_dxF"][layer], 2, 1)
            of_layer |= {
                "mlp.shared_expert.up_proj.weight": h.T,
                "mlp.shared_expert.gate_proj.weight": gate.T,
                "mlp.shared_expert.down_proj.weight": moe["shared"]["w_out_fxd"][layer].T,
                "mlp.shared_expert_gate.weight": moe["shared_gate_d"][layer][None],
            }
        named |= {f"model.layers.{layer}.{name}": value for name, value in of_layer.items()}
    return named


def check(model, c, balance_weight):
    """Loss and every gradient agree; `balance_weight` is ours as transformers counts it."""
    import torch

    t = trainer(c)
    rng = np.random.default_rng(1)
    # Norms begin at 1, where a scale in the wrong place would not show.
    params = jax.tree.map(lambda p: np.asarray(p) * rng.uniform(0.5, 1.5, p.shape).astype(p.dtype), t.init(0).params)
    given = windows(c)
    gradients, statistics = jax.jit(t.gradients)(params, put(t, given))
    assert not np.any(statistics["dropped_fraction"])

    missing, unknown = model.load_state_dict({k: torch.tensor(v) for k, v in theirs(params).items()}, strict=False)
    assert missing == ["lm_head.weight"] * c.model.tied_embeddings and not unknown  # which is the table then
    tokens = torch.tensor(given, dtype=torch.int64)
    out = model(input_ids=tokens[:, :-1], output_router_logits=True, use_cache=False)
    loss = torch.nn.functional.cross_entropy(out.logits.flatten(0, 1), tokens[:, 1:].flatten())
    (loss + balance_weight * out.aux_loss).backward()

    assert float(statistics["loss"]) == pytest.approx(loss.item(), rel=LOSS)
    ours = theirs(jax.tree.map(np.asarray, gradients))
    for name, parameter in model.named_parameters():
        gradient = parameter.grad.numpy()
        assert np.abs(gradient).max() > 0, name
        assert distance(ours.pop(name), gradient) < GRADIENT, name
    assert not ours


GROUPED = ("model.n_heads=4", "model.n_kv_heads=2")


@pytest.mark.slow
@pytest.mark.parametrize("heads", [(), GROUPED], ids=["heads", "shared keys"])
def test_mixtral_is_token_choice_with_softmax_after_top_k(heads):
    c = config(*COMMON, *heads, "moe.softmax=after_top_k", "moe.load_balance_loss_weight=0")
    check(hugging_face("Mixtral", c, num_local_experts=c.moe.n_experts, sliding_window=None), c, 0.0)


@pytest.mark.slow
def test_olmoe_is_token_choice_with_softmax_before_top_k():
    c = config(
        *COMMON, *GROUPED, "moe.softmax=before_top_k", "moe.load_balance_loss_weight=0.1", "moe.group_sequences=16",
        "model.n_layers=1", "model.qk_norm=full",
    )  # fmt: skip
    model = hugging_face("Olmoe", c, num_experts=c.moe.n_experts, norm_topk_prob=False)
    check(model, c, c.moe.load_balance_loss_weight / c.moe.top_k)


@pytest.mark.slow
@pytest.mark.parametrize("tied", [False, True])
def test_qwen3_moe_is_token_choice_renormalised(tied):
    c = config(
        *COMMON, *GROUPED, "model.head_dim=6", "model.qk_norm=head", "model.rope_theta=1e6", "model.norm_eps=1e-3",
        f"model.tied_embeddings={tied}", "moe.renormalise=True", "moe.load_balance_loss_weight=0",
    )  # fmt: skip
    f = c.moe.d_expert
    more = {"num_local_experts": c.moe.n_experts, "norm_topk_prob": True, "moe_intermediate_size": f}
    check(hugging_face("Qwen3Moe", c, head_dim=c.model.head_dim, **more), c, 0.0)


@pytest.mark.slow
def test_qwen2_moe_has_a_gated_shared_expert():
    c = config(
        *COMMON, *GROUPED, "moe.shared_experts=2", "moe.shared_gate=True", "moe.load_balance_loss_weight=0"
    )  # fmt: skip
    f = c.moe.d_expert
    widths = {"moe_intermediate_size": f, "shared_expert_intermediate_size": 2 * f}
    check(
        hugging_face("Qwen2Moe", c, num_experts=c.moe.n_experts, norm_topk_prob=False, qkv_bias=False, **widths), c, 0.0
    )


@pytest.mark.slow
@pytest.mark.parametrize("renormalise", [True, False])
def test_deepseek_v3_routes_as_token_choice_with_sigmoid_scores_in_groups(renormalise):
    torch = pytest.importorskip("torch", reason=BENCH)
    theirs = pytest.importorskip("transformers.models.deepseek_v3.modeling_deepseek_v3", reason=BENCH)
    c = config(
        "moe.active_rate=2", "moe.score=sigmoid", f"moe.renormalise={renormalise}", "moe.routed_scale=2.5",
        "moe.expert_groups=4", "moe.chosen_groups=2", "moe.bias_update_rate=0.1",
    )  # fmt: skip
    moe, rng = c.moe, np.random.default_rng(0)
    router = theirs.DeepseekV3TopkRouter(
        theirs.DeepseekV3Config(
            hidden_size=16, n_routed_experts=moe.n_experts, num_experts_per_tok=moe.top_k, n_group=moe.expert_groups,
            topk_group=moe.chosen_groups, norm_topk_prob=renormalise, routed_scaling_factor=moe.routed_scale,
        )
    )  # fmt: skip
    x_TxD, w_ExD, seen_TxE, bias_E = (
        rng.normal(size=shape).astype(np.float32) for shape in ((64, 16), (16, 16), (64, 16), (16,))
    )
    router.load_state_dict({"weight": torch.tensor(w_ExD), "e_score_correction_bias": 0.3 * torch.tensor(bias_E)})
    _, weight_TxK, expert_TxK = router(torch.tensor(x_TxD))
    # The weight of each expert, 0 where it was not chosen: the order of the chosen is theirs.
    spread_TxE = torch.zeros(64, 16).scatter(1, expert_TxK, weight_TxK)
    (spread_TxE * torch.tensor(seen_TxE)).sum().backward()

    def ours(w_ExD):
        choice, _ = token_choice((x_TxD @ w_ExD.T)[None], moe, 64, 0.3 * bias_E)
        spread = (
            jax.numpy.zeros((64, 16)).at[np.arange(64)[:, None], choice.expert_RxTxK[0]].set(choice.weight_RxTxK[0])
        )
        return (spread * seen_TxE).sum(), spread

    (_, spread), gradient = jax.jit(jax.value_and_grad(ours, has_aux=True))(w_ExD)
    assert distance(np.asarray(spread), spread_TxE.detach().numpy()) < LOSS
    assert distance(np.asarray(gradient), router.weight.grad.numpy()) < GRADIENT
