"""transformers computes what our models do: exported folders there, its own folders here."""

import dataclasses

import jax
import numpy as np
import pytest

from moe_jax.evaluation import loading
from moe_jax.evaluation.huggingface import exported, imported
from tests.evaluation.exports import FITTING, hf_config, tokenizer_json
from tests.models import trainer
from tests.run_folders import make_run

torch = pytest.importorskip("torch", reason="torch is not installed: pip install 'moe_jax[bench]'")
transformers = pytest.importorskip("transformers", reason="transformers is not installed: pip install 'moe_jax[bench]'")

# torch's and transformers' own warnings are no faults of ours.
pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore")]


def loaded_strictly(folder):
    """The model, every tensor of which is in the folder, and every tensor of the folder in it."""
    model, info = transformers.AutoModelForCausalLM.from_pretrained(folder, output_loading_info=True)
    assert not any(info.values()), info
    return model.eval()


def their_logits(model, tokens_BxS):
    with torch.no_grad():
        return model(torch.tensor(tokens_BxS, dtype=torch.long)).logits.numpy()


def our_logits(config, params, tokens_BxS, vocab_size):
    if config.moe is not None:
        config = dataclasses.replace(config, moe=dataclasses.replace(config.moe, dispatch="dropless"))
    t = trainer(config, vocab_size=vocab_size)

    @jax.jit
    def logits(params, tokens_BxS):
        model = t.model(params)
        return model.logits(model(tokens_BxS)[0])

    return np.asarray(logits(params, tokens_BxS))


def tokens(config, vocab_size):
    shape = (config.train.batch_sequences, config.data.sequence_length)
    return np.random.default_rng(1).integers(0, vocab_size, shape, np.int32)


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("name", FITTING)
def test_an_exported_model_has_our_logits(name, tied, tmp_path, words_store):
    class_name, overrides = FITTING[name]
    config = hf_config(*overrides, f"model.tied_embeddings={tied}")
    run, params = make_run(tmp_path / "run", config, words_store)
    out = tmp_path / "out"
    assert exported.export(str(tmp_path / "run"), str(out)).class_name == class_name
    model = loaded_strictly(out)
    assert type(model).__name__ == class_name and model.dtype == torch.float32
    V = run.counts.vocab_size
    given = tokens(config, V)
    ours, theirs = our_logits(config, params, given, V), their_logits(model, given)
    assert np.abs(ours - theirs).max() <= 1e-4 * np.abs(ours).max()
    assert np.abs(ours - our_logits(config, params, given[:, ::-1], V)).max() > 0.1 * np.abs(ours).max()


def test_an_exported_model_generates(tmp_path, words_store):
    _, overrides = FITTING["mixtral"]
    make_run(tmp_path / "run", hf_config(*overrides), words_store)
    exported.export(str(tmp_path / "run"), str(tmp_path / "out"))
    model = loaded_strictly(tmp_path / "out")
    tokenizer = transformers.AutoTokenizer.from_pretrained(tmp_path / "out")
    given = tokenizer(["a b", "c"], return_tensors="pt", padding=True, padding_side="left")
    made = model.generate(**given, max_new_tokens=4, do_sample=False)
    assert made.shape == (2, 7) and made[0, :3].tolist() == [100, 35, 101]
    assert model.generation_config.eos_token_id == tokenizer.eos_token_id == 1


SMALL = {
    "vocab_size": 61, "hidden_size": 24, "num_hidden_layers": 2, "num_attention_heads": 4, "num_key_value_heads": 2,
    "max_position_embeddings": 16, "intermediate_size": 20, "bos_token_id": 1, "eos_token_id": 1, "pad_token_id": None,
}  # fmt: skip
EXPERTS = {"num_experts": 6, "num_experts_per_tok": 2}
THEIRS = {
    "llama": ("Llama", {"tie_word_embeddings": True}),
    "qwen3": ("Qwen3", {"head_dim": 10}),
    "mixtral": ("Mixtral", {"num_local_experts": 6, "head_dim": 10, "rms_norm_eps": 1e-4}),
    "qwen2_moe": ("Qwen2Moe", {
        **EXPERTS, "moe_intermediate_size": 12, "shared_expert_intermediate_size": 36, "qkv_bias": False,
    }),
    "qwen3_moe": ("Qwen3Moe", {**EXPERTS, "moe_intermediate_size": 12, "head_dim": 10, "norm_topk_prob": True}),
    "olmoe": ("Olmoe", {**EXPERTS, "rope_parameters": {"rope_type": "default", "rope_theta": 500.0}}),
}  # fmt: skip


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", THEIRS)
def test_a_model_of_transformers_has_its_loss_here(name, dtype, tmp_path, words_store):
    prefix, values = THEIRS[name]
    torch.manual_seed(0)
    config = getattr(transformers, f"{prefix}Config")(**SMALL | values)
    model = getattr(transformers, f"{prefix}ForCausalLM")(config).eval()
    with torch.no_grad():  # weights that show: of a fresh model they are small, and its norms 1
        for parameter in model.parameters():
            parameter += 0.2 * torch.randn_like(parameter)
    model = model.to(getattr(torch, dtype))
    model.save_pretrained(tmp_path / "theirs")
    (tmp_path / "theirs" / "tokenizer.json").write_bytes(tokenizer_json(61))
    imported.import_folder(
        str(tmp_path / "theirs"), str(tmp_path / "ours"), overrides=["--config.train.batch_sequences=4"]
    )
    ours, _, c = loading.load(str(tmp_path / "ours"))
    windows = np.random.default_rng(1).integers(0, 61, (4, c.data.sequence_length + 1), np.int32)
    loss, _ = jax.jit(ours.losses)(windows)
    logits = torch.tensor(their_logits(model.float(), windows[:, :-1]))
    theirs = torch.nn.functional.cross_entropy(logits.flatten(0, 1), torch.tensor(windows[:, 1:]).flatten().long())
    assert float(loss.mean()) == pytest.approx(float(theirs), rel=1e-4)
