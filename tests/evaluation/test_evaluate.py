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


@pytest.fixture(scope="module")
def trained(byte_store, tmp_path_factory):
    """The folder of a run that two devices trained."""
    workdir = Workdir(str(tmp_path_factory.mktemp("trained")))
    file = config_file.load([*FLAGS, f"--config.data.store={byte_store}"])
    manifest, runs, store = from_config.enter(file, workdir, whole_grid=False)
    goal = run_goal(manifest.run(runs[0].name), workdir, manifest.store)
    loop.train([goal], store, manifest.store, Options(say=lambda sentence: None, devices=jax.devices()[:2]))
    return goal.folder


@pytest.mark.parametrize("router", [(), EXPERT_CHOICE], ids=["token choice", "expert choice"])
def test_any_mesh_and_batch_give_the_same_loss(router, byte_store):
    """44 windows in batches of 16, 8 and 32; expert choice's groups of 8 are cut from the windows, not the batch."""
    store = open_store(byte_store)
    sequences = 40 if router else 44
    one = trainer(config(*router, "model.vocab_size=259"), vocab_size=259)
    params = one.init(0).params
    held_out = HeldOut(store, 16, sequences)
    wanted = held_out_lib.evaluate(one, params, held_out)
    for overrides, mesh in [
        (["train.batch_sequences=8"], {}),
        (["train.batch_sequences=32"], {"data": 2, "expert": 4}),
        (["train.batch_sequences=32", "train.microbatches=2"], {"expert": 2}),
    ]:
        other = trainer(config(*router, *overrides), vocab_size=259, **mesh)
        placed = jax.device_put(jax.device_get(params), other.shardings.params)
        found = held_out_lib.evaluate(other, placed, held_out)
        assert found == pytest.approx(wanted, rel=1e-6), (overrides, mesh)


def test_the_verb_gives_the_loss_of_the_result_on_one_device(trained, verb):
    done = verb("evaluate", f"--workdir={trained.path}")
    assert done.returncode == 0, done.stderr
    written = json.loads((trained.path / "evaluation.json").read_text())
    result = trained.result()
    for name in ("eval_loss", "bits_per_byte"):
        assert written[name] == pytest.approx(getattr(result, name), rel=1e-6)
    assert written["step"] == result.steps and written["n_devices"] == 1 and "eval loss" in done.stdout


def test_the_verb_on_another_store(trained, verb, tmp_path, capsys):
    make_store(tmp_path / "other")
    done = verb("evaluate", f"--workdir={trained.path}", f"--store={tmp_path / 'other'}", "--sequences=4")
    assert done.returncode == 0, done.stderr
    written = json.loads((trained.path / "evaluation.json").read_text())
    assert written["sequences"] == 4 and written["eval_loss"] != trained.result().eval_loss
    make_store(tmp_path / "bpe", vocabulary="bpe:300")
    for flags, words in [
        ([f"--store={tmp_path / 'bpe'}"], "another vocabulary"),
        ([f"--store={tmp_path / 'none'}"], "there is no token store"),
        (["--sequences=0"], "must be above 0"),
        (["--sequences=1000000"], "held-out part"),
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
