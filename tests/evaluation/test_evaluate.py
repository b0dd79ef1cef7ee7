"""The held-out loss of the same parameters is the same everywhere; a run is loaded in one line."""

import json
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest

import moe_jax
from moe_jax import errors
from moe_jax.cli import command, evaluate
from moe_jax.config import config_file
from moe_jax.data.batches import HeldOut
from moe_jax.data.store import open_store
from moe_jax.sweep import from_config
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import held_out as held_out_lib
from moe_jax.training import loop
from moe_jax.training.goal import run_goal
from moe_jax.training.options import Options
from tests.conftest import ROOT
from tests.data_stores import make_store
from tests.hand_edits import change, sealed_text
from tests.models import EXPERT_CHOICE, config, trainer

FLAGS = ["--config=configs/smoke.py:tiny", "--config.train.tokens=1024", "--config.moe.capacity_factor=1.0"]


def train(flags, path):
    """Trains on two devices; the run's folder."""
    workdir = Workdir(str(path))
    manifest, runs, store = from_config.enter(config_file.load(flags), workdir, whole_grid=False)
    goal = run_goal(manifest.run(runs[0].name), workdir, manifest.store)
    loop.train([goal], store, manifest.store, Options(say=lambda sentence: None, devices=jax.devices()[:2]))
    return goal.folder


@pytest.fixture(scope="module")
def trained(byte_store, tmp_path_factory):
    """The folder of a run that two devices trained."""
    return train([*FLAGS, f"--config.data.store={byte_store}"], tmp_path_factory.mktemp("trained"))


def evaluation(folder, of):
    """The run's evaluation on the store of this name."""
    (found,) = (e for e in folder.evaluations() if e.of == of)
    return found


DROPPING = ("moe.capacity_factor=1.0", "moe.granularity=4")
CASES = {
    "token choice, dropless": (DROPPING, "dropless", 44),
    "token choice, capacity": (DROPPING, "slots", 44),
    "token choice, groups of two": ((*DROPPING, "moe.group_sequences=2"), "dropless", 44),
    "expert choice": (EXPERT_CHOICE, "slots", 40),
}


@pytest.mark.parametrize("case", CASES)
def test_any_mesh_and_batch_give_the_same_loss(case, byte_store):
    """44 windows in batches of 16, 8 and 32, so the last batch is filled up with zeros, whose loss and dropped tokens
    must not count; expert choice's groups of 8 are cut from the windows, not the batch."""
    router, dispatch, sequences = CASES[case]
    one = trainer(config(*router, "model.vocab_size=259"), vocab_size=259)
    params = one.init(0).params
    held_out = HeldOut(open_store(byte_store), 16, sequences)
    wanted = held_out_lib.evaluate(one, params, held_out, dispatch)
    assert (wanted["eval_dropped_fraction"] > 0.01) == (case == "token choice, capacity")
    for overrides, mesh in [
        (["train.batch_sequences=8"], {}),
        (["train.batch_sequences=4" if sequences == 44 and "group" not in case else "train.batch_sequences=8"], {}),
        (["train.batch_sequences=32"], {"data": 2, "expert": 4}),
        (["train.batch_sequences=32"], {"data": 2, "expert": 2}),
        (["train.batch_sequences=32", "train.microbatches=2"], {"expert": 2}),
    ]:
        other = trainer(config(*router, *overrides), vocab_size=259, **mesh)
        placed = jax.device_put(jax.device_get(params), other.shardings.params)
        found = held_out_lib.evaluate(other, placed, held_out, dispatch)
        assert found == pytest.approx(wanted, rel=1e-6), (overrides, mesh)


def test_dropless_is_what_a_large_enough_capacity_gives(byte_store):
    """The oracle: with a slot for every token, nothing is dropped, and both dispatches compute the same."""
    held_out = HeldOut(open_store(byte_store), 16, 20)
    losses = {}
    for factor in (1.0, 8.0):
        t = trainer(config(*DROPPING[1:], f"moe.capacity_factor={factor}"), vocab_size=259)
        params = t.init(0).params
        for dispatch in ("dropless", "slots", "dense"):
            losses[factor, dispatch] = held_out_lib.evaluate(t, params, held_out, dispatch)
    wanted = losses[1.0, "dropless"]
    assert wanted["eval_dropped_fraction"] == 0
    for same in ((8.0, "dropless"), (8.0, "slots"), (8.0, "dense")):
        assert losses[same] == pytest.approx(wanted, rel=1e-6), same
    assert losses[1.0, "slots"] == pytest.approx(losses[1.0, "dense"], rel=1e-6)
    assert abs(losses[1.0, "slots"]["eval_loss"] / wanted["eval_loss"] - 1) > 1e-5
    assert losses[1.0, "slots"]["eval_dropped_fraction"] > 0.01


def test_a_run_measures_both_losses_once(trained, monkeypatch, byte_store, tmp_path):
    result = trained.result()
    assert trained.run_record().config.eval.dispatch == "dropless"
    assert result.eval_loss != result.eval_loss_capacity
    assert result.eval_loss_capacity == pytest.approx(result.eval_loss, rel=0.2)
    assert 0 < result.eval_dropped_fraction < 1
    asked, evaluate = [], held_out_lib.evaluate
    monkeypatch.setattr(held_out_lib, "evaluate", lambda *args: asked.append(args[-1]) or evaluate(*args))
    for name, flag in [("asked", "--config.eval.dispatch=slots"), ("dropless", "--config.moe.dispatch=dropless")]:
        asked.clear()
        same = train([*FLAGS, f"--config.data.store={byte_store}", flag], tmp_path / name).result()
        assert same.eval_loss_capacity is None and len(asked) == 1
        if name == "asked":  # trained as the other run was, so its only loss is the other's with capacity
            assert same.eval_loss == pytest.approx(result.eval_loss_capacity, rel=1e-6)
            assert same.eval_dropped_fraction == pytest.approx(result.eval_dropped_fraction, rel=1e-6)
        else:
            assert same.eval_dropped_fraction == same.dropped_fraction == 0


def test_a_dense_run_has_one_loss(byte_store, tmp_path):
    result = train([FLAGS[0], FLAGS[1], f"--config.data.store={byte_store}", "--config.moe=None"], tmp_path).result()
    assert result.eval_loss_capacity is None and result.eval_dropped_fraction == 0


def test_the_verb_gives_the_loss_of_the_result_on_one_device(trained, verb):
    done = verb("evaluate", f"--workdir={trained.path}")
    assert done.returncode == 0, done.stderr
    written = evaluation(trained, "python_stdlib_byte")
    result = trained.result()
    for name in ("eval_loss", "bits_per_byte"):
        assert written.values[name] == pytest.approx(getattr(result, name), rel=1e-6)
    assert written.step == result.steps and written.tokens == result.tokens and "eval loss" in done.stdout
    assert written.about["dispatch"] == "dropless" and written.about["sequences"] == 16


def test_the_verb_on_another_store(trained, verb, tmp_path, capsys):
    make_store(tmp_path / "Other-1")
    done = verb("evaluate", f"--workdir={trained.path}", f"--store={tmp_path / 'Other-1'}", "--sequences=4")
    assert done.returncode == 0, done.stderr
    written = evaluation(trained, "other_1")
    assert written.about["sequences"] == 4 and written.values["eval_loss"] != trained.result().eval_loss
    flags = [f"--workdir={trained.path}", f"--store={tmp_path / 'Other-1'}", "--name=code"]
    assert command.run(evaluate.main, flags) == errors.DONE
    assert evaluation(trained, "code").about["sequences"] == 16  # the config's number
    make_store(tmp_path / "bpe", vocabulary="bpe:300")
    for flags, words in [
        ([f"--store={tmp_path / 'bpe'}"], "another vocabulary"),
        ([f"--store={tmp_path / 'none'}"], "there is no token store"),
        (["--sequences=0"], "must be above 0"),
        (["--sequences=1000000"], "held-out part"),
        (["--name=A b"], "--name='A b': must be a name of lower-case letters"),
        (["--name=capacity"], "eval_loss_capacity is another column"),
    ]:
        assert command.run(evaluate.main, [f"--workdir={trained.path}", *flags]) == errors.BAD_INPUT
        assert words in capsys.readouterr().err
    assert command.run(evaluate.main, [f"--workdir={tmp_path}"]) == errors.BAD_INPUT
    assert "not the folder of a run" in capsys.readouterr().err


def test_load_gives_the_model_in_one_line(trained):
    model, params, c = moe_jax.load(str(trained.path))
    assert c.steps == trained.result().steps and c.model.d_model == 16
    tokens = np.random.default_rng(0).integers(0, 259, (c.train.batch_sequences, c.data.sequence_length + 1), np.int32)
    loss, _ = model.losses(tokens)
    assert loss.shape == (c.train.batch_sequences, c.data.sequence_length)
    assert 0 < float(loss.mean()) < 20 and "tokens_Vxd" in params


def test_load_says_what_is_missing(trained, tmp_path):
    with pytest.raises(errors.UserError, match=r"no run\.json"):
        moe_jax.load(str(tmp_path))
    (tmp_path / "run.json").write_bytes((trained.path / "run.json").read_bytes())
    with pytest.raises(errors.UserError, match="no whole checkpoint"):
        moe_jax.load(str(tmp_path))


def test_another_runs_checkpoints_are_refused(trained, tmp_path, capsys):
    """Their loss would stand under this run's name."""
    folder = tmp_path / "run"
    shutil.copytree(trained.path, folder)
    for digests in (folder / "checkpoints").glob("*.sha256.json"):
        change(digests, config_hash="another")
    with pytest.raises(errors.UserError, match="no whole checkpoint of this run"):
        moe_jax.load(str(folder))
    assert "it is of another run (config hash 'another')" in capsys.readouterr().out


@pytest.mark.parametrize(
    "changed", [None, {"config": {}}, {"counts": []}, {"counts": {"vocab_size": "3"}}, {"store": {}}, {"name": 3}]
)
def test_a_foreign_run_json_is_refused(trained, tmp_path, changed, capsys):
    whole = json.loads((trained.path / "run.json").read_text())
    (tmp_path / "run.json").write_text(sealed_text({} if changed is None else whole | changed))
    assert command.run(evaluate.main, [f"--workdir={tmp_path}"]) == errors.BAD_INPUT
    assert "run.json: is damaged" in capsys.readouterr().err


def test_importing_load_is_cheap():
    code = "import sys; from moe_jax import load; print([m for m in ('jax', 'numpy', 'etils') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
