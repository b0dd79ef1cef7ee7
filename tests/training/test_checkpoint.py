"""A checkpoint is used only if every byte of it is what was written."""

import json
import os
import shutil

import jax
import numpy as np
import pytest
from etils import epath

from moe_jax.training.checkpoint import Checkpoints
from tests.hand_edits import sealed_text
from tests.models import config, trainer


@pytest.fixture(scope="module")
def states():
    t = trainer(config())
    return t, [t.init(seed) for seed in range(3)]


@pytest.fixture
def saved(tmp_path, states):
    """(folder, what was said, a Checkpoints) with the steps 10 and 20."""
    said = []
    checkpoints = Checkpoints(epath.Path(tmp_path / "checkpoints"), "hash", keep=2, say=said.append)
    for step, state in zip((10, 20), states[1], strict=False):
        checkpoints.save(state, step)
    checkpoints.wait()
    yield tmp_path / "checkpoints", said, checkpoints
    checkpoints.close()


def same(a, b):
    return all(np.array_equal(x, y) for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True))


def test_the_newest_is_restored_to_the_bit(saved, states):
    _, said, checkpoints = saved
    state, step = checkpoints.restore(states[0].abstract_state)
    assert step == 20 and same(state, states[1][1]) and not said
    assert jax.tree.map(lambda x: x.sharding, state) == states[0].shardings


def test_a_state_is_restored_onto_another_mesh(saved, states):
    other = trainer(config(), data=2, expert=4)
    state, step = saved[2].restore(other.abstract_state)
    assert step == 20 and same(state, states[1][1])
    assert jax.tree.map(lambda x: x.sharding, state) == other.shardings


def test_only_the_newest_are_kept(saved, states):
    folder, _, checkpoints = saved
    checkpoints.save(states[1][2], 30)
    checkpoints.wait()
    assert checkpoints.steps() == [20, 30]
    assert sorted(p.name for p in folder.iterdir()) == ["20", "20.sha256.json", "30", "30.sha256.json"]


def test_every_file_is_guarded(saved, states):
    """Truncated, emptied, one bit flipped, removed, or one more: the step is skipped, said, and the one before is
    used."""
    folder, said, checkpoints = saved
    guarded = [p for p in (folder / "20").rglob("*") if p.is_file()] + [folder / "20.sha256.json"]
    assert len(guarded) > 5
    for path in guarded:
        whole = path.read_bytes()
        flipped = bytearray(whole)
        if whole:
            flipped[len(whole) // 2] ^= 1
        damages = [b"", whole[: len(whole) // 2], bytes(flipped), None] if whole else [b"x", None]
        for damage in damages:
            if damage is None:
                path.unlink()
            else:
                path.write_bytes(damage)
            said.clear()
            state, step = checkpoints.restore(states[0].abstract_state)
            assert step == 10 and same(state, states[1][0]), path
            # Without its digest a step never counted; every other damage is said.
            assert said or (damage is None and path.name == "20.sha256.json")
            path.write_bytes(whole)
    (folder / "20" / "extra").write_bytes(b"x")
    assert checkpoints.restore(states[0].abstract_state)[1] == 10
    (folder / "20" / "extra").unlink()
    assert checkpoints.restore(states[0].abstract_state)[1] == 20


def test_what_a_kill_leaves_is_ignored_and_replaced(saved, states):
    folder, _, checkpoints = saved
    (folder / "20.sha256.json").unlink()  # killed between Orbax's commit and the digest
    (folder / "30.orbax-checkpoint-tmp-1").mkdir()
    assert checkpoints.restore(states[0].abstract_state)[1] == 10
    checkpoints.save(states[1][2], 20)
    checkpoints.wait()
    state, step = checkpoints.restore(states[0].abstract_state)
    assert step == 20 and same(state, states[1][2])
    assert not (folder / "30.orbax-checkpoint-tmp-1").exists()


@pytest.mark.parametrize("digests", ['{"files": []}', '{"files": 3}', "{}", "[]"])
def test_a_digest_file_of_another_kind_is_damaged(saved, states, digests):
    folder, said, checkpoints = saved
    (folder / "20.sha256.json").write_text(digests if digests == "[]" else sealed_text(json.loads(digests)))
    assert checkpoints.restore(states[0].abstract_state)[1] == 10
    assert "its digest file is damaged; the one before is tried" in said[0]


def test_a_file_where_a_step_belongs_is_skipped_and_replaced(saved, states):
    folder, said, checkpoints = saved
    shutil.rmtree(folder / "20")
    (folder / "20").write_text("x")
    assert checkpoints.restore(states[0].abstract_state)[1] == 10 and "20 is skipped: its files are gone" in said[0]
    checkpoints.save(states[1][2], 20)
    checkpoints.wait()
    assert checkpoints.restore(states[0].abstract_state)[1] == 20


def test_a_step_without_a_digest_is_skipped(saved, states):
    """As a kill between the arrays and the digest leaves it."""
    folder, said, checkpoints = saved
    (folder / "20.sha256.json").unlink()
    assert checkpoints.restore(states[0].abstract_state)[1] == 10
    assert "20 is skipped: it has no digest" in said[0]
    said.clear()
    assert checkpoints.restore(states[0].abstract_state, at_most=15)[1] == 10 and not said


def test_none_where_there_is_none(tmp_path, states):
    checkpoints = Checkpoints(epath.Path(tmp_path / "nothing"), "hash", keep=2)
    assert checkpoints.restore(states[0].abstract_state) is None
    checkpoints.close()


def test_an_error_of_the_background_is_raised(saved, states, monkeypatch):
    _, _, checkpoints = saved

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("moe_jax.files.write_sealed", full)
    checkpoints.save(states[1][2], 30)
    with pytest.raises(OSError, match="No space"):
        checkpoints.wait()
    monkeypatch.undo()
    assert checkpoints.steps() == [10, 20]


def test_a_renamed_step_is_not_believed(saved, states):
    """It would go on at the step of its name, and end with another loss."""
    folder, said, checkpoints = saved
    (folder / "20").rename(folder / "60")
    (folder / "20.sha256.json").rename(folder / "60.sha256.json")
    state, step = checkpoints.restore(states[0].abstract_state)
    assert step == 10 and same(state, states[1][0])
    assert "60 is skipped: it was saved as step 20; the one before is tried" in said[0]


def test_another_runs_checkpoints_are_not_believed(saved, states):
    folder, said, _ = saved
    other = Checkpoints(epath.Path(folder), "another", keep=2, say=said.append)
    assert other.restore(states[0].abstract_state) is None
    assert all("it is of another run (config hash 'hash')" in sentence for sentence in said) and len(said) == 2
    other.close()


def test_a_pipe_or_a_link_back_inside_a_checkpoint_ends_nothing(saved, states):
    folder, said, checkpoints = saved
    os.mkfifo(folder / "20" / "pipe")
    (folder / "20" / "back").symlink_to("..")
    assert checkpoints.restore(states[0].abstract_state)[1] == 10
    assert "back was not there" in said[0]
