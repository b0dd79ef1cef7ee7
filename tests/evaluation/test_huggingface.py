"""Folders of transformers: written whole or not at all, read back to the bit; what has no counterpart is named."""

import errno
import json

import jax
import numpy as np
import pytest
from etils import epath

from moe_jax import errors
from moe_jax.cli import command, export, import_
from moe_jax.config import fields
from moe_jax.evaluation import loading
from moe_jax.evaluation.huggingface import architectures, exported, imported, tensors, weights
from tests.evaluation.exports import FITTING, FORM, hf_config, tokenizer_json
from tests.hand_edits import sealed_text
from tests.models import EXPERT_CHOICE, config, trainer
from tests.run_folders import make_run, random_params


@pytest.fixture
def run(tmp_path, words_store):
    """The folder of a run that Mixtral fits."""
    make_run(tmp_path / "run", hf_config(*FITTING["mixtral"][1]), words_store)
    return tmp_path / "run"


@pytest.mark.parametrize("tied", [False, True], ids=["untied", "tied"])
@pytest.mark.parametrize("name", FITTING)
def test_parameters_become_tensors_and_back_to_the_bit(name, tied):
    class_name, overrides = FITTING[name]
    c = hf_config(*overrides, f"model.tied_embeddings={tied}")
    architecture = architectures.fitting(c)
    assert architecture.class_name == class_name
    params = random_params(trainer(c))
    places = weights.places(architecture, c)
    made = dict(weights.tensors(params, places))
    assert ("lm_head.weight" in made) != tied and len(made) == len(places)
    assert sum(tensor.size for tensor in made.values()) == sum(array.size for array in jax.tree.leaves(params))
    back = weights.parameters(made, places, params, "there")
    jax.tree.map(np.testing.assert_array_equal, back, params)


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=[] if name in ("llama", "qwen2_moe") else pytest.mark.slow) for name in FITTING]
)
def test_a_run_comes_back_from_its_export_to_the_bit(name, tmp_path, words_store):
    """The same parameters and tokens, and, exported again, the same files."""
    c = hf_config(*FITTING[name][1])
    run, params = make_run(tmp_path / "run", c, words_store)
    exported.export(str(tmp_path / "run"), str(tmp_path / "out"))
    imported.import_folder(str(tmp_path / "out"), str(tmp_path / "again"))
    restored = loading.restore(str(tmp_path / "again"))
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(restored.state.params), params)
    again = loading.run_of(str(tmp_path / "again"))
    assert restored.step == 0 and again.store == run.store
    for group in ("n_total", "n_active"):
        assert getattr(again.counts, group) == getattr(run.counts, group)
    exported.export(str(tmp_path / "again"), str(tmp_path / "out2"))
    for file in ("model.safetensors", "config.json", "tokenizer.json"):
        first, second = ((tmp_path / out / file).read_bytes() for out in ("out", "out2"))
        if file == "config.json" and c.moe is not None:  # width of a dense twin that is not there
            assert json.loads(first) | {"intermediate_size": 0, "router_aux_loss_coef": 0} == json.loads(second) | {
                "intermediate_size": 0, "router_aux_loss_coef": 0
            }  # fmt: skip
        else:
            assert first == second, file


DENSE = (*FORM, "moe=None")
REFUSED = {
    "expert choice": ((*FORM, *EXPERT_CHOICE), ["moe.router = 'expert_choice' (it has 'token_choice')"]),
    "relu": (("model.norm=rmsnorm", "model.positions=rope"), ["model.activation = 'relu' (it has 'swiglu')"]),
    "learned positions": ((*FORM, "model.positions=learned"), ["model.positions = 'learned' (it has 'rope')"]),
    "layernorm": ((*DENSE, "model.norm=layernorm"), ["model.norm = 'layernorm'", "LlamaForCausalLM"]),
    "output norm": ((*FORM, "moe.output_norm=True", "moe.softmax=after_top_k"), ["moe.output_norm = True"]),
    "an ungated shared expert": ((*FORM, "moe.shared_experts=1"), ["moe.shared_gate = False", "Qwen2Moe"]),
    "router bias": ((*FORM, "moe.softmax=after_top_k", "moe.bias_update_rate=0.01"), ["moe.bias_update_rate = 0.01"]),
    "sigmoid": ((*FORM, "moe.score=sigmoid", "moe.renormalise=True"), ["moe.score = 'sigmoid'"]),
    "scaled": ((*FORM, "moe.softmax=after_top_k", "moe.routed_scale=2.5"), ["moe.routed_scale = 2.5"]),
    "shares of all": (FORM, ["moe.softmax = 'before_top_k' (it has 'after_top_k'", "MixtralForCausalLM"]),
    "no final norm": ((*DENSE, "model.final_norm=False"), ["model.final_norm = False"]),
    "norm over the width": ((*DENSE, "model.qk_norm=full"), ["model.qk_norm = 'full'"]),
}  # fmt: skip


@pytest.mark.parametrize("case", REFUSED)
def test_what_has_no_counterpart_is_refused_with_its_fields(case):
    overrides, words = REFUSED[case]
    with pytest.raises(errors.UserError) as e:
        architectures.fitting(config(*overrides))
    assert all(word in str(e.value) for word in words), e.value


def test_the_norms_of_olmoe_are_as_wide_as_the_model():
    obstacles = architectures.OLMOE.obstacles(hf_config("model.qk_norm=full", "model.head_dim=12"))
    assert obstacles == ["model.head_dim = 12 (it has d_model / n_heads = 8)"]


def test_a_users_router_is_refused():
    values = fields.to_dict(hf_config())
    values["moe"]["router"] = "mine:router"
    with pytest.raises(errors.UserError, match=r"moe\.router = 'mine:router'"):
        architectures.fitting(fields.from_dict(values))


def test_the_verbs_say_what_they_wrote(run, tmp_path, capsys):
    out = tmp_path / "new" / "out"
    assert command.run(export.main, [f"--workdir={run}", "--to=hf", f"--out={out}"]) == errors.DONE
    said = capsys.readouterr().out
    assert "step 3 as MixtralForCausalLM" in said and "capacity factor 0.5" in said and "259 ids" in said
    assert sorted(p.name for p in out.iterdir()) == [
        "README.md", "config.json", "generation_config.json", "model.safetensors", "moe_jax.json", "tokenizer.json",
        "tokenizer_config.json",
    ]  # fmt: skip
    card = (out / "README.md").read_text()
    assert loading.run_of(str(run)).config_hash in card and "capacity factor 0.5" in card
    back = tmp_path / "back"
    flags = [f"--from={out}", f"--out={back}", "--config.data.sequence_length=8", "--config.train.batch_sequences=2"]
    assert command.run(import_.main, flags) == errors.DONE
    assert "MixtralForCausalLM" in capsys.readouterr().out
    model, _, c = loading.load(str(back))
    assert model(np.zeros((2, 8), np.int32))[0].shape == (2, 8, c.model.d_model)


def test_an_out_that_is_there_is_refused(run, tmp_path, capsys):
    (tmp_path / "out").mkdir()
    for flags in ([f"--out={tmp_path / 'out'}"], [f"--out={run / 'run.json'}"]):
        assert command.run(export.main, [f"--workdir={run}", "--to=hf", *flags]) == errors.BAD_INPUT
        assert "is there already; name a new folder" in capsys.readouterr().err
    assert not list((tmp_path / "out").iterdir())
    assert command.run(export.main, [f"--workdir={run}", "--to=hf", "--out=gs://bucket/out"]) == errors.BAD_INPUT
    assert "must be on a local disk" in capsys.readouterr().err


@pytest.mark.parametrize("at", ["README.md", "config.json", "0.tmp"])
def test_a_full_disk_leaves_nothing(run, tmp_path, monkeypatch, capsys, at):
    from moe_jax.files import whole

    opened = whole._open_durable

    def full(path):
        if path.name.startswith(f".{at}."):
            raise OSError(errno.ENOSPC, "No space left on device")
        return opened(path)

    monkeypatch.setattr(whole, "_open_durable", full)
    out = tmp_path / "exports" / "out"
    assert command.run(export.main, [f"--workdir={run}", "--to=hf", f"--out={out}"]) == errors.FAILED
    said = capsys.readouterr().err
    assert "the disk is full" in said and said.count("\n") == 1
    assert not list(out.parent.iterdir())


def test_large_models_have_several_files(tmp_path):
    rng = np.random.default_rng(0)
    made = {f"t{i}": rng.standard_normal((i + 1, 5)).astype(np.float32) for i in range(6)}
    tensors.write(epath.Path(tmp_path), made.items(), shard_bytes=200)
    files = sorted(p.name for p in tmp_path.iterdir())
    assert "model.safetensors.index.json" in files and len(files) > 2 and not any("tmp" in f for f in files)
    index = json.loads((tmp_path / "model.safetensors.index.json").read_text())
    assert index["metadata"]["total_size"] == sum(t.nbytes for t in made.values())
    read = tensors.read(epath.Path(tmp_path))
    assert read.keys() == made.keys() == index["weight_map"].keys()
    assert all(np.array_equal(read[name], made[name]) for name in made)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"model_type": "gpt2"}, "model_type = 'gpt2': must be one of llama"),
        ({"hidden_act": "gelu"}, "hidden_act = 'gelu'"),
        ({"sliding_window": 4}, "sliding_window = 4"),
        ({"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4}}, "rope_type default alone"),
        ({"num_hidden_layers": 3}, "has no tensor model.layers.2."),
        ({"num_hidden_layers": 1}, "does not account for, model.layers.1."),
        ({"vocab_size": 300}, "its tensor model.embed_tokens.weight has the shape (259, 16), not (300, 16)"),
        ({"num_local_experts": 0}, "must be a whole number above 0"),
        ({"rms_norm_eps": "small"}, "norm_eps"),
    ],
)
def test_a_folder_that_cannot_be_read_is_refused(run, tmp_path, change, words, capsys):
    out = tmp_path / "out"
    exported.export(str(run), str(out))
    values = json.loads((out / "config.json").read_text())
    (out / "config.json").write_text(json.dumps(values | change))
    assert command.run(import_.main, [f"--from={out}", f"--out={tmp_path / 'back'}"]) == errors.BAD_INPUT
    said = capsys.readouterr().err
    assert words in said and said.count("\n") == 1, said
    assert not (tmp_path / "back").exists()


def test_imports_name_what_is_missing_or_damaged(run, tmp_path, words_store, capsys):
    out = tmp_path / "out"
    exported.export(str(run), str(out))
    shortened = (out / "model.safetensors").read_bytes()[:-8]

    def said(*flags):
        assert command.run(import_.main, [f"--from={out}", f"--out={tmp_path / 'back'}", *flags]) == errors.BAD_INPUT
        return capsys.readouterr().err

    assert "fixes it, as 16" in said("--config.model.d_model=32")
    assert "has 16 positions at most" in said("--config.data.sequence_length=32")
    assert "give single fields" in said("--config=configs/common.py")
    origin = json.loads((out / "moe_jax.json").read_text())
    (out / "moe_jax.json").write_text(json.dumps(origin | {"step": 4}))
    assert "moe_jax.json: is damaged" in said()
    other = origin["store"] | {"vocabulary": {"kind": "sentencepiece", "sha256": "0"}}
    (out / "moe_jax.json").write_text(sealed_text({"store": other}))
    assert "has another vocabulary" in said(f"--store={words_store}")
    (out / "moe_jax.json").unlink()
    (out / "tokenizer.json").unlink()
    assert "name the token store whose ids it speaks with --store" in said()
    (out / "tokenizer.json").write_bytes(tokenizer_json(300))
    assert "has token ids up to 300" in said()
    (out / "tokenizer.json").write_bytes(tokenizer_json(200))
    (out / "model.safetensors").write_bytes(shortened)
    assert "model.safetensors: is no whole safetensors file" in said()
    (out / "model.safetensors").unlink()
    assert "has no model.safetensors" in said()
    assert command.run(import_.main, [f"--from={tmp_path}", f"--out={tmp_path / 'back'}"]) == errors.BAD_INPUT
    assert "no config.json" in capsys.readouterr().err
