"""A run that is stopped, killed or damaged anywhere ends with the bits of the run that never was."""

import contextlib
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from etils import epath

from moe_jax import errors
from moe_jax.cli import command, train
from moe_jax.config import config_file
from moe_jax.data.store import open_store
from moe_jax.sweep import from_config
from moe_jax.sweep.rundir import RunDir
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import loop, program
from moe_jax.training.goal import run_goal
from moe_jax.training.options import Options
from tests.conftest import ROOT, child_environment
from tests.faults import outcome
from tests.hand_edits import sealed_text

STEPS = 16


@pytest.fixture(scope="module")
def flags(byte_store):
    return [
        "--config=configs/smoke.py:tiny", f"--config.data.store={byte_store}", f"--config.train.tokens={STEPS * 256}",
        "--config.checkpoint.every_steps=4", "--config.eval.every_steps=8", "--config.moe.bias_update_rate=0.01",
        "--config.train.log_layers=True",
    ]  # fmt: skip


def go(flags, path, on_step=lambda beat: None, say=print):
    """Trains in this process, on two of its devices."""
    workdir = Workdir(str(path))
    manifest, runs, store = from_config.enter(config_file.load(flags), workdir, whole_grid=False)
    options = Options(say=say, on_step=lambda name, heartbeat: on_step(heartbeat), devices=jax.devices()[:2])
    goal = run_goal(manifest.run(runs[0].name), workdir, manifest.store)
    return goal.folder, loop.train([goal], store, manifest.store, options)[0]


@pytest.fixture(scope="module")
def undisturbed(flags, tmp_path_factory):
    folder, result = go(flags, tmp_path_factory.mktemp("undisturbed"))
    assert result.status == "done" and result.steps == STEPS and result.tokens == STEPS * 256
    return folder


def test_what_a_run_leaves(undisturbed):
    result, run, metrics = undisturbed.result(), undisturbed.run_record(), undisturbed.read_metrics()
    assert [m["step"] for m in metrics] == list(range(STEPS))
    assert [m["tokens"] for m in metrics] == [256 * (s + 1) for s in range(STEPS)]
    assert all({"loss", "learning_rate", "dropped_fraction", "gradient_norm"} <= m.keys() for m in metrics)
    assert [m["step"] for m in metrics if "eval_loss" in m] == [7, 15]
    assert metrics[-1]["eval_loss"] == result.eval_loss
    assert result.train_loss == pytest.approx(np.mean([m["loss"] for m in metrics[-4:]]), rel=1e-6)
    assert result.bits_per_byte == pytest.approx(
        result.eval_loss / np.log(2), rel=0.01
    )  # bytes, and a few document ends
    assert {"train", "eval", "checkpoint", "compile", "data"} == result.times.keys()
    assert run.store.train_tokens == open_store(run.store.path).info.tokens["train"]
    assert run.config_hash == result.config_hash and run.versions["jax"] and run.counts.n_total_nonemb > 0
    assert undisturbed.heartbeat().phase == "done"
    assert [a.exit_code for a in undisturbed.attempts()] == [0]


def test_a_finished_run_is_a_no_op(undisturbed, flags):
    before = {p: p.stat().st_mtime_ns for p in Path(undisturbed.path).rglob("*") if p.is_file()}
    go(flags, undisturbed.path.parent.parent, on_step=lambda beat: pytest.fail("trained again"))
    assert before == {p: p.stat().st_mtime_ns for p in Path(undisturbed.path).rglob("*") if p.is_file()}


@pytest.mark.parametrize("stop_at", [1, 4, 8, 11])
def test_stopped_and_started_again_gives_the_same_bits(undisturbed, flags, tmp_path, stop_at):
    def stop(beat):
        if beat.step == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(errors.Stopped, match="stopped at step"):
        go(flags, tmp_path, on_step=stop)
    (folder_path,) = (tmp_path / "runs").iterdir()
    before = RunDir(epath.Path(folder_path)).heartbeat().times
    folder, result = go(flags, tmp_path)
    assert outcome(folder) == outcome(undisturbed)
    assert [a.exit_code for a in folder.attempts()] == [75, 0]
    assert before["train"] > 0 and all(result.times[name] >= before[name] for name in before)


def test_a_crash_and_a_damaged_checkpoint_give_the_same_bits(undisturbed, flags, tmp_path):
    def crash(beat):
        if beat.step == 14:
            raise RuntimeError("pulled the plug")

    with pytest.raises(RuntimeError, match="pulled the plug"):
        go(flags, tmp_path, on_step=crash)
    (folder_path,) = (tmp_path / "runs").iterdir()
    newest = max((folder_path / "checkpoints").glob("*.sha256.json"), key=lambda p: int(p.name.split(".")[0]))
    array = max((folder_path / "checkpoints" / newest.name.split(".")[0]).rglob("*"), key=lambda p: p.stat().st_size)
    data = bytearray(array.read_bytes())
    data[len(data) // 3] ^= 16
    array.write_bytes(data)
    said = []
    folder, _ = go(flags, tmp_path, say=said.append)
    assert any("has changed" in s for s in said)
    assert outcome(folder) == outcome(undisturbed)
    assert "pulled the plug" in folder.attempts()[0].sentence


@pytest.mark.parametrize(
    "damage", [lambda whole: whole[:-30], lambda whole: sealed_text({}).encode()], ids=["torn", "no result"]
)
def test_a_damaged_result_is_made_again(undisturbed, flags, tmp_path, damage):
    folder, _ = go(flags, tmp_path)
    folder.result_path.write_bytes(damage(folder.result_path.read_bytes()))
    said = []
    folder, _ = go(flags, tmp_path, say=said.append, on_step=lambda beat: pytest.fail("trained again"))
    assert any("set aside" in s for s in said) and list(folder.path.glob("result.json.damaged-*"))
    assert outcome(folder) == outcome(undisturbed)


def test_lost_metrics_are_said(flags, tmp_path):
    def crash(beat):
        if beat.step == 10:
            raise RuntimeError

    with pytest.raises(RuntimeError):
        go(flags, tmp_path, on_step=crash)
    (metrics,) = tmp_path.glob("runs/*/metrics.jsonl")
    metrics.write_bytes(b"not json\n" + metrics.read_bytes())
    said = []
    go(flags, tmp_path, say=said.append)
    assert any("is damaged, some steps logged before 8 are lost" in s for s in said)


def test_a_loss_that_is_not_finite_is_a_result(flags, tmp_path):
    folder, result = go([*flags, "--config.optim.learning_rate=1e30", "--config.optim.clip_norm=None"], tmp_path)
    assert result.status == "diverged" and result.eval_loss is None and result.train_loss is None
    assert result.diverged_step == result.steps < STEPS
    assert [a.exit_code for a in folder.attempts()] == [errors.DIVERGED]
    assert go([*flags, "--config.optim.learning_rate=1e30", "--config.optim.clip_norm=None"], tmp_path)[1] == result


def test_a_run_that_diverges_names_its_last_good_checkpoint(flags, tmp_path, monkeypatch):
    class Poisoned(program.Trainer):
        def __init__(self, *args):
            super().__init__(*args)
            step = self.step

            def poisoned(state, batch, schedule):
                before = int(state.step)
                state, metrics = step(state, batch, schedule)
                return state, metrics | {"loss": metrics["loss"] * (float("nan") if before == 10 else 1.0)}

            self.step = poisoned

    monkeypatch.setattr(program, "Trainer", Poisoned)
    folder, result = go(flags, tmp_path)
    assert result.status == "diverged" and result.diverged_step == 10 and result.last_good_checkpoint == 8
    assert folder.checkpoints.exists() and [m["step"] for m in folder.read_metrics()] == list(range(10))


@contextlib.contextmanager
def small_disk(path, size):
    path.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", path]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("no file system can be mounted here: it takes root")
    try:
        yield path
    finally:
        subprocess.run(["umount", "-l", path], check=True)


@pytest.mark.parametrize("how", ["full", "read-only"])
def test_a_disk_that_fails_gets_a_sentence_and_costs_nothing_saved(undisturbed, flags, tmp_path, verb, how):
    """A run with two checkpoints cannot go on; with room again it does, and ends with the same bits."""

    def stop(beat):
        if beat.step == 9:
            os.kill(os.getpid(), signal.SIGTERM)

    with small_disk(tmp_path / "disk", "8m") as disk:
        with pytest.raises(errors.Stopped):
            go(flags, disk, on_step=stop)
        saved = sorted(p.name for p in disk.glob("runs/*/checkpoints/*.sha256.json"))
        if how == "full":
            with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as f:
                while f.write(b"x" * 1024):
                    pass
        else:
            subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
        done = verb("train", *flags, f"--workdir={disk}")
        assert done.returncode == errors.FAILED and done.stderr.count("\n") == 1, done.stderr
        assert ("the disk is full" if how == "full" else "the file system is read-only") in done.stderr
        assert sorted(p.name for p in disk.glob("runs/*/checkpoints/*.sha256.json")) == saved
        if how == "full":
            (disk / "filler").unlink()
        else:
            subprocess.run(["mount", "-o", "remount,rw", disk], check=True)
        said = []
        folder, _ = go(flags, disk, say=said.append)
        assert any("goes on at step 10" in s for s in said) and outcome(folder) == outcome(undisturbed)


REMOVES = """
import shutil, sys
from moe_jax import progress
from moe_jax.cli import command, train

def update(self, name, done, *_, **__):
    if done == 6:
        shutil.rmtree(sys.argv[1])

progress.Display.update = update
command.end(train.main, [*sys.argv[2:], f"--workdir={sys.argv[1]}"])
"""


def test_a_workdir_that_is_removed_ends_the_run_with_a_sentence(flags, tmp_path):
    """In a process of its own: what Orbax gives up then complains for a while."""
    done = subprocess.run(
        [sys.executable, "-c", REMOVES, str(tmp_path / "w"), *flags], cwd=ROOT, env=child_environment(),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == errors.FAILED and "was removed while it was trained" in done.stderr, done.stderr


def test_a_file_that_may_not_grow_so_large_ends_the_run_with_a_sentence(flags, tmp_path):
    """The arrays of its checkpoint are beyond the limit; that the compiled program is, too, is JAX's warning."""
    limited = f"ulimit -f 100 && exec {shlex.join([sys.executable, '-m', 'moe_jax', 'train', *flags])}"
    done = subprocess.run(
        ["bash", "-c", f"{limited} --workdir={tmp_path}"], cwd=ROOT, env=child_environment(PYTHONWARNINGS="ignore"),
        capture_output=True, text=True,
    )  # fmt: skip
    assert done.returncode == errors.FAILED and done.stderr.count("\n") == 1, done.stderr
    assert "a file is larger than allowed (ulimit -f)" in done.stderr


def test_more_tokens_than_the_store_holds_are_refused(flags, tmp_path):
    with pytest.raises(errors.UserError, match=r"is more than the .* tokens .* holds .* data.repeat=True"):
        go([*flags, "--config.train.tokens=1e9"], tmp_path)
    assert not (tmp_path / "sweep.json").exists()


def test_an_attention_kernel_that_the_device_lacks_is_refused_before_the_run_begins(flags, tmp_path):
    with pytest.raises(errors.UserError, match=r"config.model.attention = 'flash': a cpu device has no kernel"):
        go([*flags, "--config.model.attention=flash"], tmp_path)
    assert not (tmp_path / "runs").exists()


def test_tensorboard_files_are_written_without_tensorflow(flags, tmp_path):
    folder, _ = go([*flags, "--config.tensorboard=True", "--config.train.tokens=1024"], tmp_path)
    (events,) = (folder.path / "tensorboard").iterdir()
    assert b"loss" in events.read_bytes()
    assert "tensorflow" not in sys.modules


def child(flags, path):
    command = [sys.executable, "-m", "moe_jax", "train", *flags, f"--workdir={path}", "--heartbeat_seconds=0.5"]
    return subprocess.Popen(
        command, cwd=ROOT, env=child_environment(2), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


def wait_for(condition, seconds=300):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.02)


def second_name(path):
    (run,) = (path / "runs").iterdir()
    return run.name


def test_sigterm_ends_with_75_and_the_state_saved(flags, tmp_path):
    process = child([*flags, "--config.train.tokens=2e6", "--config.checkpoint.every_steps=None"], tmp_path)
    wait_for(
        lambda: (
            any('"training"' in p.read_text() for p in tmp_path.glob("runs/*/heartbeat.json"))
            or process.poll() is not None
        )
    )
    process.send_signal(signal.SIGTERM)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == errors.STOPPED, said
    assert "stopped at step" in said and "Traceback" not in said
    assert len(list(tmp_path.glob("runs/*/checkpoints/*.sha256.json"))) == 1


def test_the_profiler_traces_the_chosen_steps(flags, tmp_path):
    folder, _ = go([*flags, "--config.profile.first_step=3", "--config.profile.steps=2"], tmp_path)
    (trace,) = Path(folder.path / "profile").rglob("*.xplane.pb")
    assert trace.stat().st_size > 1000
    assert "tensorflow" not in sys.modules


def test_a_later_start_takes_the_run(undisturbed, flags, tmp_path):
    """On an object store no lock holds it off: the older one notices and ends, and the newer one goes on alone."""
    taken = []

    def another_begins(beat):
        if beat.step == 6 and not taken:
            taken.append(Workdir(str(tmp_path)).run_dir(second_name(tmp_path)).begin_attempt("another"))

    with pytest.raises(errors.UserError, match="a later start has taken this run"):
        go(flags, tmp_path, on_step=another_begins)
    folder, _ = go(flags, tmp_path)
    assert outcome(folder) == outcome(undisturbed)
    assert [a.exit_code for a in folder.attempts()] == [errors.BAD_INPUT, None, 0]


def test_a_folder_of_another_config_is_refused(byte_store, tmp_path):
    """Where its sweep.json was deleted: names do not carry the learning rate."""
    flags = ["--config=configs/smoke.py:tiny", f"--config.data.store={byte_store}", f"--workdir={tmp_path}"]
    assert command.run(train.main, flags) == errors.DONE
    (tmp_path / "sweep.json").unlink()
    results = [p.read_bytes() for p in tmp_path.glob("runs/*/result.json")]
    assert command.run(train.main, [*flags, "--config.optim.learning_rate=1e-5"]) == errors.BAD_INPUT
    assert [p.read_bytes() for p in tmp_path.glob("runs/*/result.json")] == results


@pytest.mark.parametrize("without", [(), ("run.json",), ("run.json", "result.json")])
def test_what_is_left_of_a_run_of_another_config_is_refused(byte_store, tmp_path, without):
    """Its result and its checkpoints say themselves of which config they are."""
    flags = ["--config=configs/smoke.py:tiny", f"--config.data.store={byte_store}", "--config.train.tokens=512"]
    folder, _ = go(flags, tmp_path)
    for path in [tmp_path / "sweep.json", *(folder.path / name for name in without)]:
        path.unlink()
    if "result.json" not in without:
        (folder.path / "run.json").write_text("{")
    with pytest.raises(errors.UserError, match=r"holds a run of another config .* or move that folder away"):
        go([*flags, "--config.optim.learning_rate=1e-5"], tmp_path)


def test_damaged_checkpoints_are_not_kept_instead_of_new_ones(undisturbed, flags, tmp_path):
    """All are damaged: that it begins at its seed is said, and what it saves then is what it goes on from."""

    def stop(at):
        return lambda beat: os.kill(os.getpid(), signal.SIGTERM) if beat.step == at else None

    with pytest.raises(errors.Stopped):
        go(flags, tmp_path, on_step=stop(11))
    for path in tmp_path.glob("runs/*/checkpoints/*/_CHECKPOINT_METADATA"):
        path.write_text("{}")
    said = []
    with pytest.raises(errors.Stopped):
        go(flags, tmp_path, on_step=stop(2), say=said.append)
    assert [("the one before is tried" in s) for s in said if "is skipped" in str(s)] == [True, False]
    assert any("begins at its seed: none of its checkpoints can be used" in str(s) for s in said)
    folder, _ = go(flags, tmp_path, say=said.append)
    assert any("goes on at step 3 of 16" in str(s) for s in said) and outcome(folder) == outcome(undisturbed)
