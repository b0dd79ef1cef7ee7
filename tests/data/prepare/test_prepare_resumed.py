"""prepare that is killed, or whose source changes, and is started again: its store equals that of a single start."""

import json
import os
import shutil
import signal
import subprocess
import time

import numpy as np
import pytest
from etils import epath

from moe_jax.data import store
from moe_jax.data.prepare import assembly, build, pieces
from moe_jax.data.store import open_store
from moe_jax.errors import DONE, STOPPED, UserError
from tests.data_stores import COMMAND, SOURCE, Killed, Texts, contents, killed, make_store, words


def _kill_at(monkeypatch, moment):
    """Raises Killed at the moment-th file that `prepare` finishes, just before or just after its rename."""
    finished = 0

    def replace(temporary, path):
        nonlocal finished
        finished += 1
        if finished == moment and moment % 2:
            raise Killed
        os.replace(temporary, path)
        if finished == moment:
            raise Killed

    monkeypatch.setattr(type(epath.Path("x")), "replace", replace)


def test_killed_at_every_file_and_resumed_gives_the_same_store(tmp_path, monkeypatch):
    make_store(tmp_path / "whole", SOURCE, "bpe:300")
    expected = contents(tmp_path / "whole")
    deaths = 0
    for moment in range(1, 100):
        path = tmp_path / f"killed{moment}"
        with monkeypatch.context() as patch:
            _kill_at(patch, moment)
            try:
                make_store(path, SOURCE, "bpe:300")
                break
            except Killed:
                deaths += 1
        make_store(path, SOURCE, "bpe:300")
        assert contents(path) == expected
    assert deaths > 2 * SOURCE.n_shards


def test_finished_shards_are_not_done_again(tmp_path, monkeypatch):
    made, written = [], []
    monkeypatch.setattr(pieces, "make", lambda *a, real=pieces.make: made.append(a[-1]) or real(*a))
    monkeypatch.setattr(assembly, "write_shard", lambda *a, real=assembly.write_shard: written.append(a[3]) or real(*a))
    with monkeypatch.context() as patch:
        patch.setattr(build, "write_info", killed)
        with pytest.raises(Killed):
            make_store(tmp_path / "s", SOURCE)
    make_store(tmp_path / "s", SOURCE)
    assert made == list(range(6))
    assert written == list(store.ARRAYS)


@pytest.mark.parametrize("killed_before", ["_assemble", "write_info"])
@pytest.mark.parametrize("n_documents", [10, 20])
def test_what_was_made_of_another_content_is_done_again(tmp_path, monkeypatch, killed_before, n_documents):
    changed = Texts((*SOURCE.shards[:3], words(99, n_documents), *SOURCE.shards[4:]))
    with monkeypatch.context() as patch:
        patch.setattr(build, killed_before, killed)
        with pytest.raises(Killed):
            make_store(tmp_path / "s", SOURCE)
    make_store(tmp_path / "s", changed)
    make_store(tmp_path / "fresh", changed)
    assert contents(tmp_path / "s") == contents(tmp_path / "fresh")


def test_a_vocabulary_that_was_trained_on_another_content_is_trained_again(tmp_path, monkeypatch):
    changed = Texts((words(99, 10), *SOURCE.shards[1:]))
    with monkeypatch.context() as patch:
        patch.setattr(build, "_make_pieces", killed)
        with pytest.raises(Killed):
            make_store(tmp_path / "s", SOURCE, "bpe:300")
    make_store(tmp_path / "s", changed, "bpe:300")
    make_store(tmp_path / "fresh", changed, "bpe:300")
    assert contents(tmp_path / "s") == contents(tmp_path / "fresh")


def _flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def _no_counts(path):
    path.write_text(json.dumps(json.loads(path.read_text()) | {"tokens": None}))


def _train_only(*texts):
    return tuple(("train", text) for text in texts)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("killed_before", [None, "_assemble"])
def test_the_first_document_is_held_out_where_chance_takes_none(tmp_path, monkeypatch, workers, killed_before):
    source = Texts((_train_only(), _train_only("one", "two"), _train_only("three")), held_out_by_chance=True)
    if killed_before:
        monkeypatch.setattr(build, killed_before, killed)
        with pytest.raises(Killed):
            make_store(tmp_path / "s", source, workers=workers)
        monkeypatch.undo()
    made = make_store(tmp_path / "s", source, workers=workers)
    assert made.info.documents == {"train": 2, "heldout": 1}
    assert bytes(t - 3 for t in made.shard("heldout", 0)[:-1].tolist()) == b"one"


def test_chance_that_takes_one_in_the_end_is_left_alone(tmp_path, monkeypatch):
    """After a kill, the first document goes back to training if a changed shard has a held-out one."""
    few = Texts((_train_only("one", "two"), _train_only("three")), held_out_by_chance=True)
    more = Texts((few.shards[0], (("heldout", "four"), ("train", "five"))), held_out_by_chance=True)
    with monkeypatch.context() as patch:
        patch.setattr(build, "_assemble", killed)
        with pytest.raises(Killed):
            make_store(tmp_path / "s", few)
    make_store(tmp_path / "s", more)
    make_store(tmp_path / "fresh", more)
    assert contents(tmp_path / "s") == contents(tmp_path / "fresh")


@pytest.mark.parametrize(("source", "says"), [
    (Texts((_train_only("one"),), held_out_by_chance=True), "1 documents to train on, 0 held out, 0 skipped; there"),
    (Texts((_train_only("one", "two"),)), "2 documents to train on, 0 held out"),
])  # fmt: skip
def test_what_no_document_can_be_held_out_of_is_too_small(tmp_path, source, says):
    with pytest.raises(UserError, match=f"too small: {says}"):
        make_store(tmp_path / "s", source)


HALF_DONE_DAMAGES = {
    "tokens flipped": ("pieces/000002-train.numbers", _flip),
    "tokens lost": ("pieces/000002-heldout.numbers", os.unlink),
    "bytes flipped": ("pieces/000002-heldout_bytes.numbers", _flip),
    "piece without counts": ("pieces/000002.json", _no_counts),
    "piece cut": ("pieces/000002.json", lambda path: os.truncate(path, 20)),
    "settings cut": ("begun.json", lambda path: os.truncate(path, 20)),
    "settings a list": ("begun.json", lambda path: path.write_text("[1]")),
    "vocabulary flipped": ("vocabulary.model", _flip),
}


@pytest.mark.parametrize("damage", HALF_DONE_DAMAGES)
def test_what_is_damaged_before_it_is_used_is_done_again(tmp_path, monkeypatch, damage):
    where, do = HALF_DONE_DAMAGES[damage]
    make_store(tmp_path / "whole", SOURCE, "bpe:300")
    with monkeypatch.context() as patch:
        patch.setattr(build, "_assemble", killed)
        with pytest.raises(Killed):
            make_store(tmp_path / "s", SOURCE, "bpe:300")
    do(tmp_path / "s" / store.UNFINISHED_NAME / where)
    make_store(tmp_path / "s", SOURCE, "bpe:300")
    assert contents(tmp_path / "s") == contents(tmp_path / "whole")


@pytest.mark.parametrize("workers", [1, 2])
def test_sigterm_ends_with_75_and_the_same_command_goes_on(tmp_path, workers):
    flags = [f"--store={tmp_path / 's'}", "--vocabulary=bpe:400", f"--workers={workers}"]
    child = subprocess.Popen([*COMMAND, *flags], stderr=subprocess.PIPE, text=True)
    pieces_folder = tmp_path / "s" / store.UNFINISHED_NAME / "pieces"
    while child.poll() is None and not list(pieces_folder.glob("*.json")):
        time.sleep(0.005)
    child.send_signal(signal.SIGTERM)
    assert child.wait(30) == STOPPED
    assert "goes on where it was" in child.stderr.read()
    child.stderr.close()
    done = {p: p.stat().st_mtime_ns for p in pieces_folder.glob("*.json")}
    assert 0 < len(done) < 16
    assert subprocess.run([*COMMAND, *flags], capture_output=True).returncode == DONE
    assert open_store(str(tmp_path / "s")).info.documents["train"] > 500


@pytest.mark.slow
def test_killed_at_random_moments_and_resumed_gives_the_same_store(tmp_path):
    def start(name):
        flags = [f"--store={tmp_path / name}", "--vocabulary=bpe:512", "--workers=2"]
        return subprocess.Popen([*COMMAND, *flags], stdout=subprocess.DEVNULL)

    began = time.perf_counter()
    assert start("whole").wait() == DONE
    seconds, kills = time.perf_counter() - began, 0
    expected = contents(tmp_path / "whole")
    random = np.random.default_rng(0)
    for i in range(10):
        for moment in random.uniform(0, seconds, 2):  # the second kill hits the resumed one
            child = start(f"killed{i}")
            try:
                child.wait(moment)
            except subprocess.TimeoutExpired:
                child.kill()
                kills += 1
                child.wait()
        assert start(f"killed{i}").wait() == DONE
        assert contents(tmp_path / f"killed{i}") == expected
        shutil.rmtree(tmp_path / f"killed{i}")
    assert kills >= 10
