"""The compiled train step costs what it did: a change that makes it do more work fails here, without a clock.

step_costs.json has a record for each minor version of JAX. Where more work is meant, or for another version, make it
anew with the command and the environment of the test, and say in the commit what the work is for.
"""

import json
import subprocess
import sys
from pathlib import Path

import jax
import pytest

from tests.conftest import ROOT, child_environment
from tests.training.step_costs import COLLECTIVES, STEPS

RECORDS = Path(__file__).with_name("step_costs.json")
VERSION = ".".join(jax.__version__.split(".")[:2])


@pytest.mark.slow
def test_the_step_costs_what_it_did():
    records = json.loads(RECORDS.read_text())
    if VERSION not in records:
        pytest.skip(f"no record for JAX {VERSION}: put what tests/training/step_costs.py prints into {RECORDS.name}")
    command = [sys.executable, "-m", "tests.training.step_costs"]
    done = subprocess.run(command, cwd=ROOT, env=child_environment(8), capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    for name in STEPS:
        wanted = records[VERSION][name]
        assert found[name]["flops"] == pytest.approx(wanted["flops"], rel=0.03), name
        assert found[name]["bytes"] == pytest.approx(wanted["bytes"], rel=0.1), name
        assert {c: found[name][c] for c in COLLECTIVES} == {c: wanted[c] for c in COLLECTIVES}, name
