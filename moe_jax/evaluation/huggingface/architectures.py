"""The architectures of transformers that a config may fit, and their config.json.

An architecture states what each field of a config must be; whatever it does not state, it has a field for. Sources:
transformers 5.23, models/{llama,qwen3,mixtral,qwen2_moe,qwen3_moe,olmoe}. Dropping is no part of any: an exported model
computes what ours does with `moe.dispatch = "dropless"`.
"""

import dataclasses
from collections.abc import Mapping
from typing import Any

from moe_jax.config.schema import Config
from moe_jax.errors import UserError

_MODEL = {
    "model.activation": ("swiglu",),
    "model.norm": ("rmsnorm",),
    "model.final_norm": (True,),
    "model.positions": ("rope",),
    "model.ff_bias": (False,),
}
_MOE = {
    "moe.router": ("token_choice",),
    "moe.score": ("softmax",),
    "moe.routed_scale": (1,),
    "moe.expert_groups": (1,),
    "moe.bias_update_rate": (0,),
    "moe.output_norm": (False,),
}


@dataclasses.dataclass(frozen=True)
class Architecture:
    """One causal language model of transformers."""

    model_type: str
    class_name: str
    wants: Mapping[str, tuple[Any, ...]]  # field -> the values that it may have
    sums_to_one: bool = False  # the weights of a token's experts do, always
    narrow_heads: bool = False  # a head has d_model / n_heads, as the norms of queries and keys are that wide

    @property
    def moe(self) -> bool:
        """Whether its feed-forwards are MoE layers."""
        return "moe.router" in self.wants

    @property
    def shared(self) -> bool:
        """Whether a MoE layer has a shared expert."""
        return self.wants.get("moe.shared_gate") == (True,)

    def obstacles(self, config: Config) -> list[str]:
        """What stands in the way of the config, field by field; both have a MoE layer or both have none."""
        found = []
        for field, allowed in self.wants.items():
            group, _, name = field.partition(".")
            value = getattr(getattr(config, group), name)
            if value not in allowed:
                found.append(f"{field} = {value!r} (it has {' or '.join(map(repr, allowed))})")
        if self.shared and not config.moe.shared_experts:
            found.append("moe.shared_experts = 0 (it has a shared expert)")
        if self.sums_to_one and not sums_to_one(config):
            found.append(
                f"moe.softmax = {config.moe.softmax!r} (it has 'after_top_k', or moe.renormalise = True: a token's "
                "weights sum to 1)"
            )
        m = config.model
        if (self.narrow_heads or self.model_type == "llama") and m.d_model % m.n_heads:
            found.append(f"model.n_heads = {m.n_heads} (it must divide model.d_model = {m.d_model})")
        elif self.narrow_heads and m.head_dim != m.d_model // m.n_heads:
            found.append(f"model.head_dim = {m.head_dim} (it has d_model / n_heads = {m.d_model // m.n_heads})")
        return found


def _moe(model_type: str, class_name: str, qk_norm: str, shared: bool = False, **rest: bool) -> Architecture:
    experts = {"moe.shared_gate": (True,)} if shared else {"moe.shared_experts": (0,)}
    return Architecture(model_type, class_name, _MODEL | {"model.qk_norm": (qk_norm,)} | _MOE | experts, **rest)


LLAMA = Architecture("llama", "LlamaForCausalLM", _MODEL | {"model.qk_norm": ("none",)})
QWEN3 = Architecture("qwen3", "Qwen3ForCausalLM", _MODEL | {"model.qk_norm": ("head",)})
MIXTRAL = _moe("mixtral", "MixtralForCausalLM", "none", sums_to_one=True)
QWEN2_MOE = _moe("qwen2_moe", "Qwen2MoeForCausalLM", "none", shared=True)
QWEN3_MOE = _moe("qwen3_moe", "Qwen3MoeForCausalLM", "head")
OLMOE = _moe("olmoe", "OlmoeForCausalLM", "full", narrow_heads=True)
ARCHITECTURES = {a.model_type: a for a in (LLAMA, QWEN3, MIXTRAL, QWEN2_MOE, QWEN3_MOE, OLMOE)}


def sums_to_one(config: Config) -> bool:
    """Whether the weights of a token's experts sum to 1: shares of the chosen, or shares of all, divided by their
    sum, which is the same."""
    return config.moe.softmax == "after_top_k" or config.moe.renormalise


def fitting(config: Config) -> Architecture:
    """The architecture that computes what the config's model does. Raises UserError with the fields that stand in the
    way of the nearest one."""
    of_its_kind = [a for a in ARCHITECTURES.values() if a.moe == (config.moe is not None)]
    nearest = min(of_its_kind, key=lambda a: len(a.obstacles(config)))
    if obstacles := nearest.obstacles(config):
        raise UserError(
            f"no architecture of transformers computes what this model does; {nearest.class_name} would, but for "
            f"{', '.join(f'config.{obstacle}' for obstacle in obstacles)}; train a model without these differences"
        )
    return nearest


def config_json(config: Config, vocab_size: int, end_of_document: int, dtype: str) -> dict[str, Any]:
    """The object of config.json. Texts begin and end with the token that ends a document, as in training."""
    a, m, moe = fitting(config), config.model, config.moe
    values: dict[str, Any] = {
        "architectures": [a.class_name],
        "model_type": a.model_type,
        "vocab_size": vocab_size,
        "hidden_size": m.d_model,
        "intermediate_size": m.d_ff,
        "num_hidden_layers": m.n_layers,
        "num_attention_heads": m.n_heads,
        "num_key_value_heads": m.n_kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": config.data.sequence_length,
        "rms_norm_eps": m.norm_eps,
        "rope_parameters": {"rope_type": "default", "rope_theta": float(m.rope_theta)},
        "rope_theta": float(m.rope_theta),  # where transformers before 5 reads it
        "tie_word_embeddings": m.tied_embeddings,
        "bos_token_id": end_of_document,
        "eos_token_id": end_of_document,
        "dtype": dtype,
    }
    if not a.narrow_heads:
        values["head_dim"] = m.head_dim
    if a.model_type in ("llama", "qwen3", "qwen3_moe", "olmoe"):
        values["attention_bias"] = False
    if a.model_type == "llama":
        values["mlp_bias"] = False
    return values | (_moe_json(a, config) if moe is not None else {})


def _moe_json(a: Architecture, config: Config) -> dict[str, Any]:
    m, moe = config.model, config.moe
    values = {
        "num_experts_per_tok": moe.top_k,
        "router_aux_loss_coef": moe.load_balance_loss_weight,
        "output_router_logits": False,
    }
    if a.model_type == "mixtral":
        return values | {"num_local_experts": moe.n_experts, "intermediate_size": moe.d_expert, "sliding_window": None}
    values |= {"num_experts": moe.n_experts, "norm_topk_prob": sums_to_one(config)}
    if a.model_type == "olmoe":
        return values | {"intermediate_size": moe.d_expert, "clip_qkv": None}
    values |= {
        "moe_intermediate_size": moe.d_expert,
        "decoder_sparse_step": 1,
        "mlp_only_layers": [],
        "use_sliding_window": False,
    }
    if a.shared:
        # Side by side the shared experts are one feed-forward.
        values |= {"shared_expert_intermediate_size": moe.d_expert * moe.shared_experts, "qkv_bias": False}
    return values | {"intermediate_size": m.d_ff}
