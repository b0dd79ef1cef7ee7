"""Whole files, sealed JSON and locks on a local disk; tests/sweep and the tests on gs:// use the rest."""

import json
import threading

import pytest
from etils import epath

from moe_jax import files
from tests.unreadable import unreadable

FIELDS = {"name": "x", "tokens": {"train": 3}, "lengths": [1, 2]}


@pytest.fixture
def path(tmp_path):
    return epath.Path(tmp_path / "x.json")


def test_a_block_that_fails_leaves_the_old_file_and_nothing_else(path):
    files.write_atomic(path, b"old")
    with pytest.raises(RuntimeError), files.writing(path) as f:
        f.write(b"new")
        raise RuntimeError
    assert path.read_bytes() == b"old"
    assert [p.name for p in path.parent.iterdir()] == [path.name]


def test_readers_see_the_old_file_until_the_new_one_is_whole(path):
    files.write_atomic(path, b"old")
    with files.writing(path) as f:
        f.write(b"new")
        f.flush()
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"


def test_a_sealed_file_reads_back_and_has_a_line_for_each_field(path):
    files.write_sealed(path, FIELDS)
    assert files.read_sealed(path) == FIELDS
    assert len(path.read_text().splitlines()) == len(FIELDS) + 1 + 2  # the seal, and the braces


def _without_seal(content):
    return {name: value for name, value in content.items() if name in FIELDS}


@pytest.mark.parametrize(
    "change",
    [lambda c: c | {"name": "y"}, lambda c: c | {"more": 1}, lambda c: {**c, "tokens": {"train": 4}}, _without_seal],
)
def test_a_changed_field_is_seen(path, change):
    files.write_sealed(path, FIELDS)
    path.write_text(json.dumps(change(json.loads(path.read_text()))))
    with pytest.raises(files.DamagedFile, match=r"x\.json: is damaged"):
        files.read_sealed(path)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff\xfe", b"[" * 100_000])
def test_what_is_no_json_object_is_damaged(path, content):
    path.write_bytes(content)
    for read in (files.read_json, files.read_sealed):
        with pytest.raises(files.DamagedFile, match=r"x\.json: is damaged"):
            read(path)


def test_a_lock_is_for_one_and_the_next_one_waits_for_it(path):
    waiting, held = threading.Event(), []

    def second():
        with files.locked(path, wait=waiting.set) as ours:
            held.append(ours)

    thread = threading.Thread(target=second)
    with files.locked(path) as ours:
        assert ours
        with files.locked(path) as ours_too:
            assert not ours_too
        thread.start()
        assert waiting.wait(10)
        assert held == []
    thread.join(10)
    assert held == [True]
    with files.locked(path) as ours:
        assert ours


def test_what_the_system_does_not_let_us_read_is_told_from_damage(path):
    files.write_sealed(path, {"a": 1})
    with unreadable(path), pytest.raises(files.UnreadableFile, match=r"cannot be read \(Permission denied\)"):
        files.read_sealed(path)
    assert files.read_sealed(path) == {"a": 1}
