"""Weights & Biases: asked for and installed it gets every logged step; asked for and absent, a sentence."""

import json
import subprocess
import sys

import pytest

from moe_jax import errors
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import sinks
from tests.conftest import ROOT, child_environment

FLAGS = ["--config=configs/smoke.py:tiny", "--config.train.tokens=1024", "--config.eval.every_steps=2"]


def test_without_the_package_there_is_a_sentence(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "wandb", None)
    with pytest.raises(errors.UserError, match=r"config\.wandb = 'p': needs wandb: pip install 'moe_jax\[wandb\]'"):
        sinks.WeightsAndBiases(Workdir(str(tmp_path)).run_dir("n"), "p", {})


@pytest.mark.slow
def test_an_offline_run_has_every_logged_step(byte_store, tmp_path):
    pytest.importorskip("wandb")
    command = [
        sys.executable, "-m", "moe_jax", "train", *FLAGS, f"--config.data.store={byte_store}", "--config.wandb=project",
        f"--workdir={tmp_path}",
    ]  # fmt: skip
    environment = child_environment(WANDB_MODE="offline")
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    (run,) = (tmp_path / "runs").iterdir()
    (logged,) = run.glob("wandb/offline-run-*/run-*.wandb")
    data = logged.read_bytes()  # values are JSON in it
    lines = Workdir(str(tmp_path)).run_dir(run.name).read_metrics()
    assert len(lines) == 4 and sum("eval_loss" in line for line in lines) == 2
    for line in lines:
        for name in ("loss", "gradient_norm", "eval_loss"):
            assert name not in line or json.dumps(line[name]).encode() in data, (line["step"], name)


@pytest.mark.slow
def test_without_a_key_it_is_said_before_anything_is_trained(byte_store, tmp_path):
    pytest.importorskip("wandb")
    command = [
        sys.executable, "-m", "moe_jax", "train", *FLAGS, f"--config.data.store={byte_store}", "--config.wandb=project",
        f"--workdir={tmp_path}",
    ]  # fmt: skip
    environment = child_environment(HOME=str(tmp_path), WANDB_BASE_URL="http://localhost:9", WANDB_MODE="online")
    done = subprocess.run(
        command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300, stdin=subprocess.DEVNULL
    )
    assert done.returncode == errors.BAD_INPUT and "Weights & Biases cannot begin" in done.stderr, done.stderr
