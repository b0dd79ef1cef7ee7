"""The host's script starts again what a restart can help, and nothing else, with arguments that survive the shell."""

import os
import shutil
import subprocess

import pytest

from tests.conftest import ROOT

SCRIPTS = sorted((ROOT / "tpu_scripts").glob("*.sh"))

# Stands for Python: notes its arguments and ends with the next of the codes it was given.
FAKE = """#!/usr/bin/env bash
printf '%s\\n' "$@" >> arguments
n=$(( $(cat count 2>/dev/null || echo 0) + 1 )); echo "$n" > count
exit "$(sed -n "${n}p" codes)"
"""


@pytest.fixture
def host(tmp_path):
    """host(codes, *args): runs run_host.sh where the training ends with these codes, one after the other."""
    (tmp_path / "tpu_scripts").mkdir()
    shutil.copy(ROOT / "tpu_scripts" / "run_host.sh", tmp_path / "tpu_scripts")
    python = tmp_path / ".venv" / "bin" / "python"
    python.parent.mkdir(parents=True)
    python.write_text(FAKE)
    python.chmod(0o755)

    def run(codes, *args):
        (tmp_path / "codes").write_text("".join(f"{c}\n" for c in codes))
        script = tmp_path / "tpu_scripts" / "run_host.sh"
        done = subprocess.run([script, *args], capture_output=True, text=True, timeout=60)
        started = int((tmp_path / "count").read_text()) if (tmp_path / "count").exists() else 0
        return done, started

    run.folder = tmp_path
    return run


@pytest.mark.parametrize(
    ("codes", "code", "starts"),
    [([0], 0, 1), ([75, 137, 134, 0], 0, 4), ([75, 3], 3, 2), ([2], 2, 1), ([1], 1, 1), ([75] * 9, 75, 4)],
)
def test_what_is_started_again(host, codes, code, starts):
    done, started = host(codes, "gs://b/w", "n1-d2-g1-s0", "3")
    assert (done.returncode, started) == (code, starts), done.stderr


def test_arguments_survive_the_shell(host):
    workdir = "gs://b/a 'quoted' $(touch hacked) w"
    done, _ = host([0], workdir, "n1-d2-g1-s0")
    assert done.returncode == 0
    arguments = (host.folder / "arguments").read_text().splitlines()
    assert arguments == ["-m", "moe_jax.train", f"--workdir={workdir}", "--run=n1-d2-g1-s0"]
    assert not (host.folder / "hacked").exists()


def test_without_arguments_it_says_how(host):
    done, started = host([0])
    assert (done.returncode, started) == (2, 0) and "usage" in done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_scripts_are_strict_and_parse(script):
    assert "set -euo pipefail" in script.read_text() and os.access(script, os.X_OK)
    assert subprocess.run(["bash", "-n", script]).returncode == 0
