"""A run's log: rates, MFU where the peak is known, and times that outlive a restart."""

import threading
import time

import pytest

from moe_jax import files
from moe_jax.sweep.heartbeat import Heartbeat
from moe_jax.sweep.workdir import Workdir
from moe_jax.training.metrics import Recorder, Times


def recorder(folder, **more):
    return Recorder(folder, steps=10, batch_tokens=100, attempt=1, writes=True, flush_seconds=60.0, **more)


@pytest.fixture
def folder(tmp_path):
    folder = Workdir(str(tmp_path)).run_dir("n1-d1-g1-s0")
    folder.create()
    return folder


def test_mfu_is_the_rate_times_what_one_token_a_second_is(folder):
    r = recorder(folder, mfu_of_rate=1e-6)
    for step in range(3):
        r.seen(step, 2.0)
        r.log(step, {"loss": 2.0})
        time.sleep(0.01)
    r.flush(metrics=True)
    r.close()
    lines = folder.read_metrics()
    assert lines[0]["mfu"] is None and lines[0]["tokens_per_second"] is None  # the first step has the compile in it
    for line in lines[1:]:
        assert line["mfu"] == pytest.approx(1e-6 * line["tokens_per_second"], rel=1e-9) and line["mfu"] > 0
    assert folder.heartbeat().mfu == lines[-1]["mfu"]


def test_without_a_known_peak_there_is_no_mfu(folder):
    r = recorder(folder)
    r.seen(0, 2.0)
    r.seen(1, 2.0)
    assert r.heartbeat.mfu is None and r.heartbeat.tokens_per_second > 0
    r.close()


def test_times_are_split_and_go_on_after_a_restart(folder):
    r = recorder(folder)
    with r.times.spent_on("train"):
        time.sleep(0.03)
        with r.times.spent_on("eval"):
            time.sleep(0.02)
    r.flush()
    r.close()
    first = dict(r.times.seconds)
    assert 0.03 <= first["train"] < first["train"] + first["eval"] and first["eval"] >= 0.02
    again = recorder(folder)
    assert again.times.seconds == pytest.approx(first)
    with again.times.spent_on("train"):
        time.sleep(0.01)
    assert again.times.seconds["train"] >= first["train"] + 0.01
    again.close()


def test_times_count_what_is_under_way():
    """An attempt that is killed, or that saves and stops inside its loop, has nothing else."""
    times = Times({"train": 100.0})
    assert times.seconds == {"train": 100.0, "eval": 0.0, "checkpoint": 0.0, "compile": 0.0, "data": 0.0}
    began = time.perf_counter()
    with times.spent_on("train"):
        inside = time.perf_counter()
        time.sleep(0.03)
        with times.spent_on("eval"):
            time.sleep(0.02)
        with times.spent_on("checkpoint"):
            time.sleep(0.01)
            with times.spent_on("data"):
                time.sleep(0.02)
                least, now, most = time.perf_counter() - inside, times.seconds, time.perf_counter() - began
    assert least <= sum(now.values()) - 100 <= most
    assert now["train"] < 100 + most - 0.05 and now["checkpoint"] < most - 0.07
    assert all(now[name] >= least for name, least in {"train": 100.03, "eval": 0.02, "data": 0.02}.items())


def test_what_a_heartbeat_should_not_hold_counts_as_nothing():
    def seconds(times):
        return Times(Heartbeat.from_json({"times": times}).times).seconds

    assert seconds({"train": "x", "eval": float("nan"), "checkpoint": 10**400, "data": 2, "?": 3}) == {
        "train": 0.0, "eval": 0.0, "checkpoint": 0.0, "compile": 0.0, "data": 2.0
    }  # fmt: skip
    assert sum(seconds({"train": 1e308, "eval": 1e308, "data": -900}).values()) == 0.0
    assert seconds([1]) == seconds({}) == seconds(None) == Times({}).seconds


def test_what_the_owner_check_raises_is_raised(folder):
    owner = [None]

    def check():
        if owner[0]:
            raise RuntimeError("taken")

    r = recorder(folder, check_owner=check)
    r.flush()
    owner[0] = "another"
    with pytest.raises(RuntimeError, match="taken"):
        r.flush()
    r.close()


def test_an_older_snapshot_does_not_land_on_a_newer_one(folder, monkeypatch):
    """Two threads write, and an upload may take long; what is logged meanwhile does not wait for it."""
    r = recorder(folder)
    uploading, go_on, write = threading.Event(), threading.Event(), files.write_atomic

    def slow(path, data):
        if threading.current_thread().name == "older":
            uploading.set()
            assert go_on.wait(60)
        write(path, data)

    monkeypatch.setattr(files, "write_atomic", slow)
    older, newer = (threading.Thread(target=r.flush, args=(True,), name=name) for name in ("older", "newer"))
    r.seen(0, 2.0)
    r.log(0, {"loss": 2.0})
    older.start()
    assert uploading.wait(60)
    r.seen(1, 2.0)
    r.log(1, {"loss": 2.0})
    newer.start()
    newer.join(0.2)  # enough to overtake, were it not kept waiting
    go_on.set()
    older.join()
    newer.join()
    r.close()
    assert [line["step"] for line in folder.read_metrics()] == [0, 1] and folder.heartbeat().step == 2


@pytest.mark.parametrize(
    ("edit", "kept", "lost"),
    [
        (lambda lines: lines, [0, 2, 4], False),  # logged every other step, whatever the config says now
        (lambda lines: [*lines[:3], "not json"], [0, 2, 4], True),
        (lambda lines: [*lines[:4], "not json"], [0, 2, 4], False),  # of what is logged again
        (lambda lines: [lines[0], '{"step": 2, "loss": NaN}', *lines[2:]], [0], True),
        (lambda lines: [lines[0], '{"step": 2, "layers": [1.0, 1e999]}', *lines[2:]], [0], True),
        (lambda lines: [], [], True),
    ],
)
def test_what_a_resumed_run_keeps_of_its_log(folder, edit, kept, lost):
    folder.write_metrics([{"step": step, "loss": 2.0} for step in (0, 2, 4, 6)])
    folder.metrics.write_text("".join(f"{line}\n" for line in edit(folder.metrics.read_text().splitlines())))
    r = recorder(folder)
    assert r.resume(5) == lost
    r.flush(metrics=True)
    r.close()
    assert [line["step"] for line in folder.read_metrics()] == kept
