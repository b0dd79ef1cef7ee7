"""A host's copy of a store: equal to it, made once, completed after a kill, refused if it differs."""

import dataclasses
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from etils import epath

from moe_jax import errors
from moe_jax.data import cache
from moe_jax.data.store import ARRAYS, open_store, write_info
from moe_jax.errors import UserError, WorkFailed
from tests.conftest import ROOT, child_environment
from tests.data_stores import contents, make_store

COPY = """
import sys
from moe_jax.data import cache, store
cache.local_copy(store.open_store(sys.argv[1]), sys.argv[2])
"""


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    return make_store(tmp_path_factory.mktemp("source") / "s", vocabulary="bpe:300")


def copy_of(store, folder):
    return folder / store.info.sha256[:16]


def test_the_copy_is_the_store(store, tmp_path):
    copy = cache.local_copy(store, str(tmp_path / "cache"))
    assert copy.path == str(copy_of(store, tmp_path / "cache")) and copy.info == store.info
    assert contents(copy_of(store, tmp_path / "cache")).keys() == contents(Path(store.path)).keys()
    for array in ARRAYS:
        np.testing.assert_array_equal(copy.shard(array, 0), store.shard(array, 0))
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*") if p.is_file()}
    cache.local_copy(store, str(tmp_path / "cache"))
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "cache").rglob("*") if p.is_file()}


def test_a_copy_that_was_killed_is_finished_with_what_is_missing(store, tmp_path, monkeypatch):
    class Killed(BaseException):
        pass

    whole = cache.files.writing
    written = []

    def writing(path):
        if len(written) == 2:
            raise Killed
        written.append(path)
        return whole(path)

    monkeypatch.setattr(cache.files, "writing", writing)
    monkeypatch.setattr(cache, "_COPIERS", 1)
    with pytest.raises(Killed):
        cache.local_copy(store, str(tmp_path))
    monkeypatch.undo()
    target = copy_of(store, tmp_path)
    (target / "train" / "c" / ".0.half").parent.mkdir(parents=True, exist_ok=True)
    (target / "train" / "c" / ".0.half").write_bytes(b"half")
    assert not (target / "store.json").exists()
    kept = {p: p.stat().st_mtime_ns for p in target.rglob("*") if p.is_file() and not p.name.startswith(".")}
    assert len(kept) == 2
    copy = cache.local_copy(store, str(tmp_path))
    assert copy.info == store.info and all(p.stat().st_mtime_ns == t for p, t in kept.items())
    assert not list(target.rglob(".*"))


def test_what_is_not_the_digests_tokens_is_refused_and_removed(store, tmp_path):
    """The checksum of every chunk is right, as when the store was made again while it was copied."""
    other = make_store(tmp_path / "other", vocabulary="bpe:300")
    info = dataclasses.replace(other.info, sha256="0" * 64)
    write_info(epath.Path(tmp_path / "other"), info)
    with pytest.raises(UserError, match="not those of its digest 0000"):
        cache.local_copy(open_store(str(tmp_path / "other")), str(tmp_path / "cache"))
    assert not (tmp_path / "cache" / ("0" * 16)).exists()


def _flip_in(folder, array="train"):
    data = bytearray((folder / array / "c" / "0").read_bytes())
    data[-200] ^= 4
    (folder / array / "c" / "0").write_bytes(data)


@pytest.mark.parametrize("array", ARRAYS)
def test_a_flipped_byte_is_refused(store, tmp_path, array):
    copy = make_store(tmp_path / "damaged", vocabulary="bpe:300")
    _flip_in(tmp_path / "damaged", array)
    with pytest.raises(UserError, match="damaged"):
        cache.local_copy(copy, str(tmp_path / "cache"))
    assert not copy_of(copy, tmp_path / "cache").exists()


COPY_DAMAGES = {
    "store.json cut": lambda folder: (folder / "store.json").write_text("{"),
    "shard lost": lambda folder: (folder / "train" / "c" / "0").unlink(),
    "unfinished, a byte flipped": lambda folder: (_flip_in(folder), (folder / "store.json").unlink()),
}


@pytest.mark.parametrize("damage", COPY_DAMAGES)
def test_a_damaged_copy_is_made_anew(store, tmp_path, damage):
    cache.local_copy(store, str(tmp_path))
    COPY_DAMAGES[damage](copy_of(store, tmp_path))
    said = []
    copy = cache.local_copy(store, str(tmp_path), said.append)
    np.testing.assert_array_equal(copy.shard("train", 0), store.shard("train", 0))
    assert contents(copy_of(store, tmp_path)) == contents(Path(store.path))
    assert len(said) == 1 and "made anew" in said[0]


def test_a_copy_that_is_found_damaged_while_it_is_read_is_made_anew_by_the_next_start(store, tmp_path):
    cache.local_copy(store, str(tmp_path))
    _flip_in(copy_of(store, tmp_path))
    with pytest.raises(WorkFailed, match=f"the copy of {store.path}, is damaged .* start again"):
        cache.local_copy(store, str(tmp_path)).shard("train", 0)
    copy = cache.local_copy(store, str(tmp_path))
    np.testing.assert_array_equal(copy.shard("train", 0), store.shard("train", 0))


@pytest.mark.parametrize("folder", ["gs://bucket/cache", ""])
def test_what_is_no_local_folder_is_refused(store, folder):
    with pytest.raises(UserError, match="this host's own disk"):
        cache.local_copy(store, folder)


def test_two_processes_make_one_copy(store, tmp_path):
    command = [sys.executable, "-c", COPY, store.path, str(tmp_path)]
    started = [
        subprocess.Popen(command, cwd=ROOT, env=child_environment(), stdout=subprocess.PIPE, text=True)
        for _ in range(2)
    ]
    said = [process.communicate(timeout=120)[0] for process in started]
    assert [process.returncode for process in started] == [0, 0]
    assert sum("verify" in s for s in said) == 1  # the other found it
    assert open_store(str(copy_of(store, tmp_path))).info == store.info


def test_a_run_makes_its_copy_and_reads_that(byte_store, tmp_path, verb):
    flags = ["--config=configs/smoke.py:tiny", f"--config.data.store={byte_store}", "--config.train.tokens=512"]
    info = open_store(byte_store).info
    (tmp_path / "cache" / info.sha256[:16]).mkdir(parents=True)
    done = verb("train", *flags, f"--config.data.cache={tmp_path / 'cache'}", f"--workdir={tmp_path / 'w'}")
    assert done.returncode == 0, done.stderr
    copy = tmp_path / "cache" / info.sha256[:16]
    assert open_store(str(copy)).info == info
    (copy / "train" / "c" / "0").write_bytes(b"")  # what the run reads is this
    done = verb("train", *flags, f"--config.data.cache={tmp_path / 'cache'}", f"--workdir={tmp_path / 'w2'}")
    assert done.returncode == errors.FAILED and f"{copy}, the copy of {byte_store}, is damaged" in done.stderr
    done = verb("train", *flags, f"--config.data.cache={tmp_path / 'cache'}", f"--workdir={tmp_path / 'w2'}")
    assert done.returncode == 0, done.stderr
