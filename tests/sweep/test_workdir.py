"""The workdir takes the same sweep and its extensions, refuses another, and never believes a damaged file."""

import json
import os
import time
from concurrent.futures import ThreadPoolExecutor

import pytest
import tensorstore as ts
from etils import epath

from moe_jax import files
from moe_jax.config import config_file, grid
from moe_jax.config.cell import Cell
from moe_jax.errors import UserError, WorkFailed
from moe_jax.sweep import jobs
from moe_jax.sweep.manifest import Manifest, StoreIdentity, plan_runs
from moe_jax.sweep.run_state import state_of
from moe_jax.sweep.workdir import Workdir
from tests import synthetic_sweep as synthetic
from tests.hand_edits import sealed_text
from tests.models import config

STORE = StoreIdentity("stores/x", "a" * 64, 259)
BASE = config_file.load(["--config=configs/common.py"]).base.to_dict()


def manifest(*cells, store=STORE):
    return Manifest("s000000", "--config=x.py", store, plan_runs(grid.expand(BASE, list(cells)), store))


@pytest.fixture
def workdir(tmp_path):
    return Workdir(str(tmp_path / "w"))


def test_a_manifest_survives_the_disk(workdir):
    accepted = workdir.accept(manifest({}, {"moe": None}, {"moe.granularity": 4}), whole=True)
    assert workdir.manifest() == accepted
    assert workdir.manifest().run("n98k-d384k-dense-s0").config.moe is None


def test_the_same_grid_and_an_extension_are_taken(workdir):
    workdir.accept(manifest({}), whole=True)
    before = (workdir.path / "sweep.json").read_bytes()
    workdir.accept(manifest({}), whole=True)
    assert (workdir.path / "sweep.json").read_bytes() == before
    extended = workdir.accept(manifest({"seed": 1}, {}), whole=True)
    assert [r.name for r in extended.runs] == ["n98k-d384k-g1-s0", "n98k-d384k-g1-s1"]
    joined = workdir.accept(manifest({"seed": 2}), whole=False)
    assert len(joined.runs) == 3


def test_a_run_may_go_on_in_another_way(workdir):
    """On another mesh, with other microbatches: what is not in the hash is the newest command's."""
    workdir.accept(manifest({}, {"seed": 1}), whole=True)
    before = (workdir.path / "sweep.json").read_bytes()
    other = manifest({"mesh.data": 4, "train.microbatches": 2})
    assert workdir.accept(other, whole=False, writes=False).run("n98k-d384k-g1-s0").config.mesh.data == 4
    assert (workdir.path / "sweep.json").read_bytes() == before
    workdir.accept(other, whole=False)
    assert [run.config.mesh.data for run in workdir.manifest().runs] == [4, 1]
    assert workdir.manifest().run("n98k-d384k-g1-s0").overrides == {}


def test_another_grid_is_refused_with_the_first_run_that_differs(workdir):
    workdir.accept(manifest({}, {"seed": 1}), whole=True)
    with pytest.raises(UserError, match=r"n98k-d384k-g1-s1 is not in this grid"):
        workdir.accept(manifest({}), whole=True)
    with pytest.raises(UserError, match=r"s0 has another config \(config.optim.eps = 1e-08 there, 1e-06 here\)"):
        workdir.accept(manifest(Cell({"optim.eps": 1e-6}, name="n98k-d384k-g1-s0")), whole=False)
    with pytest.raises(UserError, match="another token store"):
        workdir.accept(manifest({}, store=StoreIdentity("stores/x", "b" * 64, 259)), whole=True)
    assert len(workdir.manifest().runs) == 2


def test_of_runs_that_join_at_once_none_is_lost(workdir):
    with ThreadPoolExecutor(8) as pool:
        joined = list(pool.map(lambda seed: workdir.accept(manifest({"seed": seed}), whole=False), range(8)))
    assert {run.config.seed for run in workdir.manifest().runs} == set(range(8))
    assert all(found.runs == workdir.manifest().runs[: len(found.runs)] for found in joined)


def test_on_an_object_store_a_writer_that_came_second_looks_again(monkeypatch):
    """TensorStore's store in memory keeps to the condition of a write, as Google's does and its emulator does not."""
    stored = ts.KvStore.open("memory://bucket/w/").result()
    monkeypatch.setattr("moe_jax.files.updates._key_values", lambda folder: {"gs://bucket/w": stored}[folder])
    path = epath.Path("gs://bucket/w/sweep.json")

    def join(i):
        files.update_json(path, lambda old: {"names": [*(old or {"names": []})["names"], i]})

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(join, range(40)))
    assert sorted(json.loads(stored["sweep.json"])["names"]) == list(range(40))
    before = stored.read("sweep.json").result().stamp.generation
    files.update_json(path, lambda old: old)
    assert stored.read("sweep.json").result().stamp.generation == before  # nothing changed, nothing written


def test_all_runs_are_checked_before_one_is_written(workdir):
    """Two trunks that would have one name: of runs that join one by one no single one shows it."""
    wsd = {"optim.schedule": "wsd", "optim.decay_fraction": 0.2}
    wsd |= {"optim.warmup_fraction": None, "optim.warmup_tokens": 19_200}

    def join(tokens, eps):
        cell = wsd | {"train.tokens": tokens, "optim.eps": eps}
        return workdir.accept(manifest(cell), whole=False, check=lambda old, new: jobs.trunks(new))

    for tokens, eps in [(384_000, 1e-6), (768_000, 1e-6), (1_536_000, 1e-7)]:
        join(tokens, eps)
    before = (workdir.path / "sweep.json").read_bytes()
    with pytest.raises(UserError, match="would be called"):
        join(3_072_000, 1e-7)
    assert (workdir.path / "sweep.json").read_bytes() == before


def test_a_vocabulary_smaller_than_the_stores_is_refused():
    with pytest.raises(UserError, match="token ids up to 259"):
        manifest({"model.vocab_size": 100})


@pytest.mark.parametrize("damage", [b"", b"{", b"[1]", b"{}", b'{"runs": 3}', b"\xff\xfe\x00"])
def test_a_damaged_manifest_is_refused(workdir, damage):
    workdir.accept(manifest({}), whole=True)
    (workdir.path / "sweep.json").write_bytes(damage)
    with pytest.raises(files.DamagedFile, match="damaged"):
        workdir.manifest()


WRONG = {
    "sweep": 5, "config_flags": None, "store": {"path": "x", "sha256": "y", "vocab_size": "z"}, "runs": [3],
    "runs.name": "../../evil", "runs.counts": [], "runs.counts.train_flops": "a", "runs.counts.tokens": 10**400,
    "runs.counts.n_total": 1, "runs.config.optim.learning_rate": 0.5,
    "runs.config": {}, "runs.config.train.tokens": 10**400, "runs.overrides": 1, "runs.config_hash": 1,
}  # fmt: skip


@pytest.mark.parametrize("field", WRONG)
def test_a_manifest_with_a_wrong_value_is_refused(workdir, field):
    workdir.accept(manifest({}), whole=True)
    values = json.loads((workdir.path / "sweep.json").read_text())
    group, *path = [values, *field.split(".")]
    for name in path[:-1]:
        group = group[name][0] if name == "runs" else group[name]
    group[path[-1]] = WRONG[field]
    (workdir.path / "sweep.json").write_text(sealed_text(values))
    with pytest.raises(files.DamagedFile, match="damaged, or another version"):
        workdir.manifest()


def test_a_manifest_with_a_run_twice_is_refused(workdir):
    workdir.accept(manifest({}), whole=True)
    values = json.loads((workdir.path / "sweep.json").read_text())
    values["runs"] *= 2
    (workdir.path / "sweep.json").write_text(sealed_text(values))
    with pytest.raises(files.DamagedFile, match="appears twice"):
        workdir.manifest()


def test_torn_metrics_end_the_list(workdir):
    folder = workdir.run_dir("a")
    folder.create()
    folder.write_metrics([{"step": s, "loss": 1.0} for s in (0, 5, 10)])
    whole = folder.metrics.read_bytes()
    assert [m["step"] for m in folder.read_metrics()] == [0, 5, 10]
    for cut in range(len(whole)):
        folder.metrics.write_bytes(whole[:cut])
        steps = [m["step"] for m in folder.read_metrics()]
        assert steps == [0, 5, 10][: len(steps)] and len(steps) >= whole[:cut].count(b"\n")
    folder.metrics.write_bytes(whole + whole)  # a step is there once
    assert [m["step"] for m in folder.read_metrics()] == [0, 5, 10]


def test_writes_are_whole_or_not_at_all(tmp_path, monkeypatch):
    path = epath.Path(tmp_path / "x.json")
    files.write_json(path, {"a": 1})

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space"):
        files.write_json(path, {"a": 2})
    assert files.read_json(path) == {"a": 1}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


def test_states(workdir):
    run = workdir.accept(manifest({}), whole=True).runs[0]
    folder = workdir.run_dir(run.name)

    def state():
        return state_of(run, folder, time.time())

    assert state().state == "queued"
    folder.create()
    number = folder.begin_attempt()
    assert state().state == "running"
    assert state_of(run, folder, time.time() + 600).state == "stale"
    folder.end_attempt(number, 75, "stopped")
    assert state().state == "queued"
    folder.end_attempt(number, 1, "this comes too late")
    assert state().state == "queued"
    folder.end_attempt(folder.begin_attempt(), -9, "killed")
    assert (state().state, state().sentence, state().attempts) == ("failed", "killed", 2)
    (folder.path / "attempts" / "3.json").write_text("{")
    assert state().attempts == 3
    folder.result_path.write_text('{"status": "do')
    assert state().state == "damaged"
    folder.result_path.write_text(sealed_text({"status": "diverged", "steps": 7}))
    assert state().state == "damaged" and "its name is None" in state().sentence
    folder.write_result(synthetic.diverged_result_of(run, 7))
    assert (state().state, state().step) == ("diverged", 7)


def test_one_process_at_a_time_trains_a_run(workdir):
    folder = workdir.run_dir("a")
    assert not folder.is_locked()
    folder.create()
    lock = folder.lock(0)
    assert folder.is_locked()
    with pytest.raises(WorkFailed, match="another process"):
        folder.lock(0.3)
    os.close(lock)
    assert not folder.is_locked()


def test_a_start_is_the_newest_where_older_ones_are_gone(workdir):
    folder = workdir.run_dir("a")
    folder.create()
    for number in (3, 4):
        (folder.path / "attempts" / f"{number}.json").write_text("{}")
    number = folder.begin_attempt("mine")
    folder.check_newest(number, "mine")
    assert number == 5 and len(folder.attempts()) == 3


def test_a_run_is_moved_aside_whole(workdir):
    folder = workdir.run_dir("a")
    assert workdir.set_run_aside("a") is None
    folder.create()
    folder.result_path.write_text(json.dumps({"status": "done"}))
    aside = workdir.set_run_aside("a")
    assert not folder.path.exists() and json.loads((aside / "result.json").read_text()) == {"status": "done"}


def test_a_name_that_is_not_utf8_is_refused():
    with pytest.raises(UserError, match=r"--workdir='runs/\\udcff': is not UTF-8"):
        Workdir("runs/\udcff")


def test_numbers_that_no_vocabulary_has_are_refused():
    with pytest.raises(UserError, match=r"store\.vocab_size is 1000"):
        plan_runs([grid.Run("a", {}, config())], StoreIdentity("x", "y", 10**40))
    with pytest.raises(UserError, match=r"model\.vocab_size = 1e\+308: must be at most 2\^53"):
        config("model.vocab_size=1e308")
