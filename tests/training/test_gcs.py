"""A training in an object store: killed, stopped, gone on with, taken over; the bits are those of a local one."""

import json
import random
import signal
import subprocess
import sys
import time
import urllib.parse
import urllib.request

import pytest

from moe_jax import errors
from tests import gcs
from tests.conftest import ROOT, child_environment

pytestmark = pytest.mark.slow

NAME = "n3p1k-d66k-g1-s0"
THERE = "gs://bucket/w"
OUTCOME = """
import hashlib, json, sys
from moe_jax.sweep.workdir import Workdir
from tests import faults
outcome = faults.outcome(Workdir(sys.argv[1]).run_dir(sys.argv[2]))
outcome["arrays"] = {name: hashlib.sha256(data).hexdigest() for name, data in outcome["arrays"].items()}
print(json.dumps(outcome))
"""


@pytest.fixture(scope="module")
def environment():
    with gcs.emulator() as emulated:
        yield child_environment(1, **emulated)


def newest_step(environment):
    """Of the run's checkpoints that have their digest, as the bucket lists them."""
    query = urllib.parse.urlencode({"prefix": f"w/runs/{NAME}/checkpoints/"})
    with urllib.request.urlopen(f"{environment['STORAGE_EMULATOR_HOST']}/storage/v1/b/bucket/o?{query}") as answer:  # noqa: S310
        names = [item["name"].rpartition("/")[2] for item in json.load(answer).get("items", [])]
    return max((int(n.split(".")[0]) for n in names if n.endswith(".sha256.json")), default=0)


@pytest.fixture(scope="module")
def flags(environment, tmp_path_factory):
    """The store is in the bucket too, and read from a copy."""
    run(environment, "-m", "moe_jax", "prepare", "--store=gs://bucket/store")
    return [
        "--config=configs/smoke.py:tiny", "--config.data.store=gs://bucket/store", "--config.train.tokens=65536",
        "--config.checkpoint.every_steps=8", "--config.eval.every_steps=64", "--heartbeat_seconds=0.2",
        f"--config.data.cache={tmp_path_factory.mktemp('cache')}",
    ]  # fmt: skip


def start(environment, flags, workdir):
    return subprocess.Popen(
        [sys.executable, "-m", "moe_jax", "train", *flags, f"--workdir={workdir}"],
        cwd=ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
    )  # fmt: skip


def run(environment, *command):
    done = subprocess.run([sys.executable, *command], cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def outcome(environment, workdir):
    return json.loads(run(environment, "-c", OUTCOME, str(workdir), NAME).splitlines()[-1])


@pytest.fixture(scope="module")
def local(environment, flags, tmp_path_factory):
    """The outcome of a run on the local disk."""
    workdir = tmp_path_factory.mktemp("local")
    process = start(environment, flags, workdir)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == errors.DONE, said
    return outcome(environment, workdir)


def test_killed_and_stopped_there_it_gives_the_bits_of_a_local_run(environment, flags, local):
    moments, codes = random.Random(0), []  # noqa: S311
    for how in (signal.SIGKILL, signal.SIGTERM, signal.SIGKILL):
        process, before = start(environment, flags, THERE), newest_step(environment)
        while newest_step(environment) <= before and process.poll() is None:
            time.sleep(0.02)
        time.sleep(moments.uniform(0, 0.3))
        process.send_signal(how)
        said = process.communicate(timeout=300)[0]
        codes.append(process.returncode)
        assert process.returncode in (-how, errors.STOPPED, errors.DONE), said
    assert -signal.SIGKILL in codes and errors.DONE not in codes
    process = start(environment, flags, THERE)
    said = process.communicate(timeout=300)[0]
    assert process.returncode == errors.DONE, said
    assert outcome(environment, THERE) == local

    verb = ("-m", "moe_jax")
    assert "1 done" in run(environment, *verb, "status", f"--workdir={THERE}")
    assert "results.csv: 1 run" in run(environment, *verb, "collect", f"--workdir={THERE}")
    assert "eval loss" in run(environment, *verb, "evaluate", f"--workdir={THERE}/runs/{NAME}")
    step = "import moe_jax, sys; print(moe_jax.load(sys.argv[1]).config.steps)"
    assert run(environment, "-c", step, f"{THERE}/runs/{NAME}").split()[-1] == "256"


def test_a_second_start_takes_the_run_and_the_first_ends(environment, flags):
    workdir = "gs://bucket/taken"
    long = [f for f in flags if "every_steps" not in f]
    first = start(environment, [*long, "--config.train.tokens=4e6"], workdir)
    for line in first.stdout:
        if " training" in line:
            break
    second = start(environment, [*long, "--config.train.tokens=4e6"], workdir)
    said = first.communicate(timeout=300)[0]
    assert first.returncode == errors.BAD_INPUT and "a later start has taken this run" in said, said
    second.send_signal(signal.SIGTERM)
    said = second.communicate(timeout=300)[0]
    assert second.returncode == errors.STOPPED, said


def test_a_bucket_that_is_not_there_gets_a_sentence(environment, byte_store):
    flags = ["--config=configs/smoke.py:tiny", f"--config.data.store={byte_store}"]
    process = start(environment, flags, "gs://nobucket/w")
    said = process.communicate(timeout=300)[0]
    assert process.returncode == errors.BAD_INPUT and "Traceback" not in said
    assert "gs://nobucket/w/sweep.json: cannot be written, as there is no such bucket" in said
    command = [sys.executable, "-m", "moe_jax", "plan", *flags, "--workdir=gs://nobucket/w"]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert done.returncode == errors.FAILED and "check that the bucket exists" in done.stderr, done.stderr
    assert "Traceback" not in done.stderr
