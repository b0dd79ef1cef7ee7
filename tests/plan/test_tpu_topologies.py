"""The real train step compiles for every TPU, fits, and neither computes nor sends more than it must.

Each case is compiled once, in a process of its own."""

import ast
import functools
import importlib.util
import itertools
import json
import subprocess
import sys

import pytest

from moe_jax import chips
from moe_jax.plan import aot
from tests import tpu_cases
from tests.tpu_cases import CASES

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        importlib.util.find_spec("libtpu") is None, reason="libtpu is not installed: pip install '.[plan]'"
    ),
]
EXCHANGED = [name for name, case in CASES.items() if tpu_cases.least_exchange(case)]


@functools.cache
def compiled(name: str) -> aot.Compiled:
    return tpu_cases.compile_case(CASES[name])


def test_every_chip_is_compiled_for():
    assert {case.topology.chip.name for case in CASES.values()} == set(chips.CHIPS)


@pytest.mark.parametrize("name", CASES)
def test_the_step_fits(name):
    assert compiled(name).fits, f"{compiled(name).bytes_per_device:,} of {compiled(name).hbm_bytes:,} bytes"
    assert compiled(name).alias_bytes > 0.99 * compiled(name).output_bytes  # the state is donated


@pytest.mark.parametrize("name", CASES)
def test_experts_compute_what_counts_say(name):
    """Dropless to the last row, since one device holds all experts; slots with all of their capacity."""
    done, least = compiled(name).expert_flops, tpu_cases.least_expert_flops(CASES[name])
    assert compiled(name).unknown_loops == 0
    assert 0.99 * least < done - compiled(name).recomputed_expert_flops <= 1.10 * least


@pytest.mark.parametrize("name", EXCHANGED)
def test_no_more_is_exchanged_than_must_be(name):
    """Dispatch and combine, forward and backward; recomputing a block repeats the dispatch, a fourth of it."""
    case = CASES[name]
    repeated = 1 if case.config.model.remat == "none" else 5 / 4
    sent = compiled(name).collectives["all-to-all"]
    assert sent <= 1.1 * repeated * tpu_cases.least_exchange(case)


@pytest.mark.parametrize("name", EXCHANGED)
def test_no_expert_is_gathered_across_the_expert_axis(name):
    case, n = CASES[name], CASES[name].mesh.expert
    moe = case.config.moe
    matrix = moe.n_experts // n * case.config.model.d_model * moe.d_expert * 2  # bytes of a device's part, bfloat16
    assert compiled(name).largest_expert_gather < (n - 1) * matrix


def test_slices_exchange_gradients_and_no_tokens():
    between = compiled("slices").between_slices
    assert set(between) == {"all-reduce"}
    case = CASES["slices"]
    parameters = compiled("slices").argument_bytes / 3  # of parameters and two moments
    assert between["all-reduce"] <= 1.1 * parameters * case.config.train.microbatches


def test_a_slice_holds_whole_replicas():
    """And neighbours along `expert` are neighbours on the torus."""
    program = (
        "from moe_jax.config.schema import MeshConfig\nfrom moe_jax.model import sharding\n"
        "from moe_jax.plan import aot\n"
        "mesh = sharding.make_mesh(MeshConfig(2, 1, 16), aot.Topology('v5e:4x4', 2).devices)\n"
        "print([[(d.slice_index, *d.coords[:2]) for d in row] for row in mesh.devices.reshape(2, 16).tolist()])"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=aot.environment(), check=True, capture_output=True, text=True
    )
    replicas = ast.literal_eval(done.stdout.splitlines()[-1])
    assert [{slice_index for slice_index, *_ in replica} for replica in replicas] == [{0}, {1}]
    steps = [abs(a - c) + abs(b - d) for (_, a, b), (_, c, d) in itertools.pairwise(replicas[0])]
    assert all(step in (1, 3) for step in steps)  # 3: around the torus


@pytest.mark.parametrize(("attention", "kernels"), [("xla", set()), ("flash", {"fwd", "dkv"})])
def test_no_scores_of_all_positions_are_in_the_step(attention, kernels):
    """At 4,096 positions, documents masked, no array of the compiled step has all queries and all keys."""
    program = (
        "import json, re\nfrom moe_jax.config.schema import MeshConfig\nfrom moe_jax.plan import aot\n"
        "from tests.models import config\n"
        "texts, program = [], aot.hlo.Program\n"
        "aot.hlo.Program = lambda text: texts.append(text) or program(text)\n"
        "c = config('model.d_model=256', 'model.compute_dtype=bfloat16', 'data.sequence_length=4096',\n"
        f"    'data.mask_documents=True', 'train.batch_sequences=8', 'model.attention={attention}')\n"
        "aot.compile_step(c, 512, aot.Topology('v5e:2x2'), MeshConfig(1, 4, 1))\n"
        "shapes = {s for s in re.findall(r'\\w+\\[[\\d,]*\\]', texts[0]) if len(re.findall(r'\\b409[67]\\b', s)) > 1}\n"
        "print(json.dumps([sorted(shapes), sorted(set(re.findall(r'/splash_mha_([a-z]+)_', texts[0])))]))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env=aot.environment(), check=True, stdout=subprocess.PIPE, text=True
    )
    shapes, found = json.loads(done.stdout.splitlines()[-1])
    assert shapes == [] and set(found) == kernels
