"""Configs that an architecture of transformers fits, and configs that none does."""

from moe_jax.config.schema import Config
from tests.models import config

FORM = ("model.activation=swiglu", "model.norm=rmsnorm", "model.positions=rope", "model.norm_eps=1e-4")
# name -> (class of transformers, overrides)
FITTING = {
    "llama": ("LlamaForCausalLM", ("moe=None", "model.n_heads=4", "model.n_kv_heads=2", "model.rope_theta=500")),
    "qwen3": ("Qwen3ForCausalLM", ("moe=None", "model.qk_norm=head", "model.head_dim=6")),
    "mixtral": ("MixtralForCausalLM", ("moe.softmax=after_top_k", "model.head_dim=6", "moe.capacity_factor=0.5")),
    "mixtral, renormalised": ("MixtralForCausalLM", ("moe.renormalise=True", "model.n_kv_heads=1")),
    "qwen2_moe": ("Qwen2MoeForCausalLM", ("moe.shared_experts=2", "moe.shared_gate=True", "model.n_kv_heads=1")),
    "qwen3_moe": ("Qwen3MoeForCausalLM", ("model.qk_norm=head", "model.head_dim=12", "model.n_kv_heads=1")),
    "qwen3_moe, renormalised": ("Qwen3MoeForCausalLM", ("model.qk_norm=head", "moe.softmax=after_top_k")),
    "olmoe": ("OlmoeForCausalLM", ("model.qk_norm=full", "model.n_heads=4", "model.n_kv_heads=2")),
}


def hf_config(*overrides: str) -> Config:
    """A small config of the form that transformers has, with these overrides."""
    return config("data.mask_documents=False", *FORM, *overrides)


def tokenizer_json(size: int) -> bytes:
    """A tokenizer.json of so many words; 1 ends a document."""
    from tokenizers import Tokenizer, models, pre_tokenizers

    ids = {"<unk>": 0, "</s>": 1} | {f"w{i}": i for i in range(2, size)}
    tokenizer = Tokenizer(models.WordLevel(ids, unk_token="<unk>"))  # noqa: S106 no password
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
    tokenizer.add_special_tokens(["</s>"])
    return tokenizer.to_str().encode()
