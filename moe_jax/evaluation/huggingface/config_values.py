"""The fields of a config from the config.json of transformers: what a model is, nothing of how it is trained."""

from collections.abc import Mapping
from typing import Any, NoReturn

from etils import epath

from moe_jax import files
from moe_jax.errors import UserError
from moe_jax.evaluation.huggingface.architectures import ARCHITECTURES, Architecture
from moe_jax.text import number

_THETA = {"mixtral": 1e6}  # rope theta where a config.json has none; else 10,000
# What a config.json may not ask for, as these models do not compute it: field -> the values that change nothing.
_IDLE = {
    "hidden_act": ("silu", "swish"),
    "attention_bias": (False, None),
    "mlp_bias": (False, None),
    "use_sliding_window": (False, None),
    "clip_qkv": (None,),
    "decoder_sparse_step": (1, None),
    "mlp_only_layers": ([], None),
    "rope_scaling": (None,),
    "pretraining_tp": (1, None),
}


def read(folder: epath.Path) -> tuple[Architecture, dict[str, Any]]:
    """(architecture, object) of the folder's config.json. Raises UserError where there is none that we know."""
    path = folder / "config.json"
    try:
        values = files.read_json(path)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise UserError(f"{folder}: is no folder of transformers (no config.json); name one on a local disk") from e
    architecture = ARCHITECTURES.get(values.get("model_type"))
    if architecture is None:
        raise UserError(
            f"{path}: model_type = {values.get('model_type')!r:.40}: must be one of {', '.join(ARCHITECTURES)}"
        )
    return architecture, values


def overrides(a: Architecture, values: Mapping[str, Any], path: epath.Path) -> dict[str, Any]:
    """Dotted config fields and their values. Raises UserError where the model computes what ours does not."""

    def refuse(field: str, rule: str) -> NoReturn:
        raise UserError(f"{path}: {field} = {values.get(field)!r:.60}: {rule}")

    def count(field: str) -> int:
        value = values.get(field)
        if not isinstance(value, int) or isinstance(value, bool) or value < 1:
            refuse(field, "must be a whole number above 0")
        return value

    for field, idle in _IDLE.items():
        if values.get(field) not in (*idle, None):
            refuse(field, f"this model cannot be had here, as {field} must be {idle[0]!r}")
    if a.shared and values.get("qkv_bias", True):
        refuse("qkv_bias", "attention here has no biases, so it must be false")
    if a.model_type == "mixtral" and values.get("sliding_window") is not None:
        refuse("sliding_window", "attention here looks at all positions before, so it must be null")
    d, n_heads = count("hidden_size"), count("num_attention_heads")
    found = {
        "model.d_model": d,
        "model.n_layers": count("num_hidden_layers"),
        "model.n_heads": n_heads,
        "model.n_kv_heads": values.get("num_key_value_heads") or n_heads,
        "model.head_dim": values.get("head_dim") or d // n_heads,
        "model.activation": "swiglu",
        "model.norm": "rmsnorm",
        "model.norm_eps": values.get("rms_norm_eps", 1e-5 if a.model_type in ("mixtral", "olmoe") else 1e-6),
        "model.final_norm": True,
        "model.positions": "rope",
        "model.rope_theta": _theta(a, values, refuse),
        "model.qk_norm": a.wants["model.qk_norm"][0],
        "model.ff_bias": False,
        "model.tied_embeddings": bool(values.get("tie_word_embeddings", False)),
        "model.vocab_size": count("vocab_size"),
        "data.sequence_length": count("max_position_embeddings"),
    }
    return found | (_moe(a, values, count, refuse) if a.moe else {"model.d_ff": count("intermediate_size")})


def _theta(a: Architecture, values: Mapping[str, Any], refuse: Any) -> float:
    rope = values.get("rope_parameters") or {}
    if not isinstance(rope, Mapping) or rope.get("rope_type", "default") != "default":
        refuse("rope_parameters", "positions here have rope_type default alone")
    theta = number(rope.get("rope_theta", values.get("rope_theta", _THETA.get(a.model_type, 1e4))))
    if theta is None:
        refuse("rope_parameters", "its rope_theta must be a number")
    return theta


def _moe(a: Architecture, values: Mapping[str, Any], count: Any, refuse: Any) -> dict[str, Any]:
    n_experts = count("num_local_experts" if "num_local_experts" in values else "num_experts")
    d_expert = count("intermediate_size" if a.model_type in ("mixtral", "olmoe") else "moe_intermediate_size")
    top_k = count("num_experts_per_tok")
    sums_to_one = a.sums_to_one or bool(values.get("norm_topk_prob", False))
    shared = 0
    if a.shared:
        width = count("shared_expert_intermediate_size")
        if width % d_expert:
            refuse("shared_expert_intermediate_size", f"must be a multiple of moe_intermediate_size = {d_expert}")
        shared = width // d_expert
    return {
        "model.d_ff": d_expert * top_k,  # the dense twin has the same FLOPs
        "moe.expansion_rate": None,
        "moe.granularity": None,
        "moe.active_rate": None,
        "moe.n_experts": n_experts,
        "moe.top_k": top_k,
        "moe.d_expert": d_expert,
        "moe.router": "token_choice",
        "moe.softmax": "after_top_k" if sums_to_one and top_k > 1 else "before_top_k",
        "moe.renormalise": sums_to_one and top_k == 1,
        "moe.output_norm": False,
        "moe.shared_experts": shared,
        "moe.shared_gate": bool(shared),
        "moe.dispatch": "dropless",
    }
