"""A token store on an object store; tests/gcs.py says what the emulator cannot show."""

import os
import subprocess
import sys

import pytest

from moe_jax.errors import BAD_INPUT, DONE
from tests import gcs

pytestmark = pytest.mark.slow

COMPARE = """
import sys, numpy as np
from moe_jax.data.store import SPLITS, open_store
here, there = map(open_store, sys.argv[1:])
assert here.info == there.info
for split in SPLITS:
    starts = np.arange(0, here.info.tokens[split] - 300, 9001)
    np.testing.assert_array_equal(here.windows(split, starts, 300), there.windows(split, starts, 300))
starts = np.array([1, 20_001, 89_001])
assert here.held_out_bytes(starts, 1000) == there.held_out_bytes(starts, 1000) > 2900
"""

LIST = """
import sys
from etils import epath
print(*(p.name for p in epath.Path(sys.argv[1]).iterdir()))
"""


@pytest.fixture
def environment():
    with gcs.emulator() as emulated:
        yield os.environ | emulated


def test_a_store_on_gs_is_the_local_one_also_after_kill(tmp_path, environment):
    def run(*command):
        return subprocess.run([sys.executable, *command], env=environment, capture_output=True, text=True)

    def prepare(store, *flags):
        return run("-m", "moe_jax", "prepare", f"--store={store}", "--vocabulary=bpe:400", *flags)

    there = "gs://bucket/stores/s"
    command = [sys.executable, "-m", "moe_jax", "prepare", f"--store={there}", "--vocabulary=bpe:400", "--workers=1"]
    kills = 0
    for seconds in (1, 1.5, 2, 2.5, 3):
        child = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
        try:
            child.wait(seconds)
        except subprocess.TimeoutExpired:
            child.kill()
            kills += child.wait() != DONE
    assert kills
    assert prepare(there, "--workers=2").returncode == DONE
    assert prepare(tmp_path / "here").returncode == DONE
    same = run("-c", COMPARE, str(tmp_path / "here"), there)
    assert same.returncode == 0, same.stderr
    names = set(run("-c", LIST, there).stdout.split())
    assert names == {"heldout", "heldout_bytes", "store.json", "train", "vocabulary.model"}
    again = prepare(there)
    assert again.returncode == DONE
    assert "is finished" in again.stdout
    assert prepare(there, "--seed=1").returncode == BAD_INPUT
