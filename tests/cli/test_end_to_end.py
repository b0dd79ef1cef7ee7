"""The whole chain as a user runs it: prepare, sweep, collect, fit, report; and a sweep that is killed on the way."""

import csv
import json
import os
import shutil
import signal
import subprocess
import sys
import time

import pytest

from moe_jax import errors
from tests.conftest import ROOT, child_environment

CONFIG = "--config=configs/smoke.py:tiny"


def sweep(store, workdir, *flags, **kwargs):
    command = [
        sys.executable,
        "-m",
        "moe_jax",
        "sweep",
        CONFIG,
        f"--config.data.store={store}",
        f"--workdir={workdir}",
        *flags,
    ]
    return subprocess.Popen(
        command,
        cwd=ROOT,
        env=child_environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        **kwargs,
    )


def results(workdir):
    return {p.parent.name: json.loads(p.read_text()) for p in workdir.glob("runs/*/result.json")}


def wait_for(condition, seconds=180):
    until = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < until, "it did not happen"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def swept(byte_store, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("swept")
    process = sweep(byte_store, workdir, "--jobs=2")
    said = process.communicate(timeout=600)[0]
    assert process.returncode == errors.DONE, said
    assert "8 of 8 runs have a result" in said and "\x1b" not in said and "\r" not in said
    return workdir


def test_the_chain(swept, verb):
    done = verb("collect", f"--workdir={swept}")
    assert done.returncode == 0, done.stderr
    with open(swept / "results.csv") as f:
        rows = list(csv.DictReader(f))
    assert len(rows) == 8 and {r["status"] for r in rows} == {"done"}
    assert all(0 < int(r["unique_tokens"]) <= int(r["tokens"]) for r in rows)
    done = verb("fit", f"--workdir={swept}")
    assert done.returncode == 0, done.stderr
    law = json.loads((swept / "law.json").read_text())
    assert law["law"] == "krajewski2024" and law["n_fit"] == 8 and law["unidentified"]
    done = verb("report", f"--workdir={swept}")
    assert done.returncode == 0, done.stderr
    page = (swept / "report.html").read_text()
    assert all(r["name"] in page for r in rows)
    assert "<script" not in page and "http:" not in page and "https:" not in page
    done = verb("status", f"--workdir={swept}")
    assert done.returncode == 0 and "8 done" in done.stdout


def test_again_repeats_nothing(swept, byte_store):
    before = {p: p.stat().st_mtime_ns for p in swept.glob("runs/*/result.json")}
    process = sweep(byte_store, swept)
    said = process.communicate(timeout=60)[0]
    assert process.returncode == errors.DONE and "8 of 8 runs have a result" in said
    assert before == {p: p.stat().st_mtime_ns for p in swept.glob("runs/*/result.json")}


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_sweep_killed_mid_grid_goes_on(swept, byte_store, tmp_path, how):
    """SIGKILL takes the sweep and not its child, which must see it, save and let go of its run."""
    process = sweep(byte_store, tmp_path)
    wait_for(lambda: len(results(tmp_path)) >= 2 or process.poll() is not None)
    process.send_signal(how)
    said = process.communicate()[0]
    assert process.returncode == (-signal.SIGKILL if how == signal.SIGKILL else errors.STOPPED), said
    assert len(results(tmp_path)) < 8
    process = sweep(byte_store, tmp_path, "--jobs=2")
    said = process.communicate(timeout=600)[0]
    assert process.returncode == errors.DONE, said
    found, wanted = results(tmp_path), results(swept)
    assert {n: r["eval_loss"] for n, r in found.items()} == {n: r["eval_loss"] for n, r in wanted.items()}


def test_a_relative_workdir_and_store(byte_store, tmp_path, verb):
    (tmp_path / "store").symlink_to(byte_store)
    config = f"--config={ROOT}/configs/smoke.py:tiny"
    for _ in range(2):  # the second finds it done
        done = verb("train", config, "--config.data.store=store", "--workdir=w", cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    assert list((tmp_path / "w").glob("runs/*/checkpoints/*.sha256.json"))


def test_another_sweep_is_refused(swept, verb, byte_store):
    done = verb(
        "sweep", CONFIG, f"--config.data.store={byte_store}", f"--workdir={swept}", "--config.optim.learning_rate=1e-3"
    )
    assert done.returncode == errors.BAD_INPUT
    assert "n768-d2k-g1-s0 has another config (config.optim.learning_rate = 0.005 there, 0.001 here)" in done.stderr


def test_one_run_of_the_grid_can_be_trained_alone(swept, verb, byte_store, tmp_path):
    done = verb(
        "train", CONFIG, f"--config.data.store={byte_store}", f"--workdir={tmp_path}", "--config.model.d_model=8",
        "--config.train.tokens=2048", "--config.moe.granularity=2",
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert results(tmp_path)["n768-d2k-g2-s0"]["eval_loss"] == results(swept)["n768-d2k-g2-s0"]["eval_loss"]


def test_a_run_that_crashes_fails_alone(swept, byte_store, tmp_path, verb):
    """Its folder is a file: that run fails with its sentence, the others are done."""
    shutil.copytree(swept, tmp_path / "w")
    shutil.rmtree(tmp_path / "w" / "runs" / "n768-d2k-g1-s0" / "checkpoints")
    (tmp_path / "w" / "runs" / "n768-d2k-g1-s0" / "result.json").unlink()
    (tmp_path / "w" / "runs" / "n768-d2k-g1-s0" / "checkpoints").write_text("not a folder")
    process = sweep(byte_store, tmp_path / "w")
    said = process.communicate(timeout=300)[0]
    assert process.returncode == errors.FAILED and "7 of 8 runs have a result" in said
    assert "n768-d2k-g1-s0" in said.splitlines()[-1]
    (tmp_path / "w" / "runs" / "n768-d2k-g1-s0" / "checkpoints").unlink()
    process = sweep(byte_store, tmp_path / "w")  # the cause is gone: the same command finishes the grid
    assert process.wait(timeout=300) == errors.DONE
    process.stdout.close()


@pytest.mark.skipif(os.geteuid() != 0, reason="needs to mount a file system of 1 MiB, which takes root")
def test_a_full_disk_gets_a_sentence(byte_store, tmp_path, verb):
    disk = tmp_path / "disk"
    disk.mkdir()
    if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", disk], capture_output=True).returncode:
        pytest.skip("no file system can be mounted here")
    try:
        done = verb(
            "train",
            CONFIG,
            f"--config.data.store={byte_store}",
            f"--workdir={disk / 'w'}",
            "--config.model.d_model=128",
        )
        assert done.returncode == errors.FAILED
        assert "the disk is full" in done.stderr and "Traceback" not in done.stderr
        assert not list(disk.glob("w/runs/*/result.json"))
    finally:
        subprocess.run(["umount", disk], check=True)
