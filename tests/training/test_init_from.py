"""A run that begins with another's weights: those, a fresh optimizer, and their digest in its config hash."""

import dataclasses
import itertools
import shutil

import jax
import numpy as np
import pytest

from moe_jax import errors
from moe_jax.config import config_file, identity
from moe_jax.config.cell import Cell
from moe_jax.config.grid import Run
from moe_jax.data.store import open_store
from moe_jax.evaluation import loading
from moe_jax.sweep import from_config, initial_weights, jobs
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import initial_weights as first_weights
from moe_jax.training import loop
from moe_jax.training.goal import run_goal
from moe_jax.training.options import Options
from tests.hand_edits import change
from tests.models import trainer
from tests.run_folders import make_run

STEPS = 4


@pytest.fixture
def source(tmp_path, words_store):
    """(the folder of a run of the same shapes, its parameters)."""
    _, params = make_run(tmp_path / "source", file(words_store).config, words_store)
    return tmp_path / "source", params


def file(store, *overrides):
    flags = ["--config=configs/smoke.py:tiny", f"--config.data.store={store}", f"--config.train.tokens={STEPS * 256}"]
    return config_file.load([*flags, "--config.data.mixture=python_stdlib", *(f"--config.{o}" for o in overrides)])


def entered(path, store, *overrides, whole_grid=False):
    workdir = Workdir(str(path))
    manifest, runs, opened = from_config.enter(file(store, *overrides), workdir, whole_grid=whole_grid)
    return workdir, manifest, [manifest.run(run.name) for run in runs], opened


def trained(path, store, *overrides, on_step=lambda beat: None, say=lambda sentence: None):
    workdir, manifest, runs, opened = entered(path, store, *overrides)
    options = Options(say=say, on_step=lambda name, beat: on_step(beat), devices=jax.devices()[:2])
    goal = run_goal(runs[0], workdir, manifest.store)
    return goal.folder, loop.train([goal], opened, manifest.store, options)[0]


def test_it_begins_with_the_weights_and_nothing_else(source, words_store):
    folder, params = source
    c = file(words_store, f"train.init_from={folder}").config
    [run] = initial_weights.with_digests([Run("run", {}, c)])
    t = trainer(c, vocab_size=259, data=2, expert=2)
    said = []
    state = first_weights.first_state(t, run.config, open_store(str(words_store)), said.append)
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.params), params)
    assert int(state.step) == 0 and "at step 3" in said[0]
    jax.tree.map(np.testing.assert_array_equal, jax.device_get(state.opt_state), jax.device_get(t.init(0).opt_state))
    assert jax.tree.map(lambda a: a.sharding, state) == t.shardings


def test_its_digest_is_in_the_hash_and_its_path_is_not(source, tmp_path, words_store):
    folder, _ = source
    shutil.copytree(folder, tmp_path / "copy")
    make_run(tmp_path / "other", file(words_store).config, words_store, seed=1)

    def hashed(name):
        overrides = [f"train.init_from={tmp_path / name}"] if name else []
        _, manifest, [run], _ = entered(tmp_path / f"w-{name}", words_store, *overrides)
        assert from_config.enter(file(words_store, *overrides), Workdir(str(tmp_path / f"w-{name}")), whole_grid=False)
        return run.config_hash, identity.trunk_hash(run.config, manifest.store.sha256, 259)

    assert hashed("source") == hashed("copy") == hashed("source@3")
    assert all(a != b for a, b in zip(hashed("source"), hashed("other"), strict=True))
    assert all(a != b for a, b in zip(hashed("source"), hashed(""), strict=True))


def test_a_run_from_it_trains_and_resumes_to_the_bit(source, tmp_path, words_store):
    folder, _ = source
    flags = [f"train.init_from={folder}", "checkpoint.every_steps=1"]
    whole, result = trained(tmp_path / "whole", words_store, *flags)
    assert result.status == "done"

    class StoppedHere(Exception):
        pass

    def stop(beat):
        if beat.step == 2:
            raise StoppedHere

    with pytest.raises(StoppedHere):
        trained(tmp_path / "w", words_store, *flags, on_step=stop)
    shutil.rmtree(folder)  # a resume needs it no longer, where its digest is given
    pinned = [*flags, f"train.init_sha256={whole.run_record().config.train.init_sha256}"]
    again, result_again = trained(tmp_path / "w", words_store, *pinned)
    assert result_again.eval_loss == result.eval_loss
    arrays = (loading.restore(str(f.path)).state.params for f in (whole, again))
    jax.tree.map(np.testing.assert_array_equal, *arrays)


def test_all_runs_of_a_sweep_and_a_pack_begin_there(source, tmp_path, words_store):
    folder, _ = source
    overrides = [f"train.init_from={folder}", "sweep.pack=2", "model.d_model=16"]
    f = file(words_store, *overrides)
    cells = [Cell({"optim.learning_rate": rate}) for rate in (1e-3, 1e-2)]
    f = dataclasses.replace(f, cells=cells)
    workdir = Workdir(str(tmp_path / "w"))
    manifest, runs, store = from_config.enter(f, workdir, whole_grid=True)
    assert len({run.config.train.init_sha256 for run in runs}) == 1 and len(jobs.jobs_of(manifest.runs)) == 1
    goals = [run_goal(run, workdir, manifest.store) for run in runs]
    results = loop.train(goals, store, manifest.store, Options(say=lambda s: None, devices=jax.devices()[:2]))
    assert [result.status for result in results] == ["done", "done"]
    first = [goal.folder.read_metrics()[0]["loss"] for goal in goals]
    alone, _ = trained(tmp_path / "alone", words_store, f"train.init_from={folder}")
    assert first[0] == first[1] == pytest.approx(alone.read_metrics()[0]["loss"], rel=1e-6)


@pytest.mark.parametrize(
    ("overrides", "words"),
    [
        (["model.n_layers=2"], "its parameter blocks."),
        (["moe.shared_experts=1"], "it has no parameter blocks.moe.shared."),
        (["model.final_norm=False"], "it has a parameter norm.bias, which this model has not"),
        (["model.tied_embeddings=True"], "it has a parameter head_dxV"),
        (["model.vocab_size=300"], "its parameter head_dxV is float32 of shape (16, 259)"),
    ],
)
def test_shapes_that_do_not_fit_are_refused_with_the_first_parameter(source, tmp_path, words_store, overrides, words):
    with pytest.raises(errors.UserError) as e:
        trained(tmp_path / "w", words_store, f"train.init_from={source[0]}", *overrides)
    assert words in str(e.value) and str(e.value).startswith("config.train.init_from = ")


def test_what_is_not_there_is_refused(source, tmp_path, words_store):
    (folder, _), number = source, itertools.count()

    def refused(*overrides):
        with pytest.raises(errors.UserError) as e:
            trained(tmp_path / f"w{next(number)}", words_store, *overrides)
        return str(e.value)

    assert "is no folder of a run with a checkpoint" in refused(f"train.init_from={tmp_path / 'none'}")
    assert "has no checkpoint of that step; it has 3" in refused(f"train.init_from={folder}@4")
    assert "give that too" in refused("train.init_sha256=abc")
    assert "no checkpoint of the digest abc" in refused(f"train.init_from={folder}", "train.init_sha256=abc")
    sha = initial_weights.digest(*initial_weights.named(str(folder)))
    data = max((folder / "checkpoints" / "3").rglob("*"), key=lambda p: p.stat().st_size if p.is_file() else 0)
    data.write_bytes(data.read_bytes()[:-1] + b"?")
    assert "its checkpoint of step 3 is damaged" in refused(f"train.init_from={folder}", f"train.init_sha256={sha}")
    change(folder / "checkpoints" / "3.sha256.json", files=None)
    assert "are damaged" in refused(f"train.init_from={folder}")
