"""Topologies, and what a compiled program's text says; the compiles for TPUs are in test_tpu_topologies.py."""

import dataclasses
import importlib.util
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from moe_jax import chips
from moe_jax.config.schema import MeshConfig
from moe_jax.errors import UserError
from moe_jax.model import sharding
from moe_jax.plan import aot, hlo
from tests.models import VOCABULARY, config


def test_a_topology_knows_its_size_without_libtpu():
    assert (aot.Topology("v5p:2x2x4").chips, aot.Topology("v5p:2x2x4").n_devices) == (16, 16)
    assert (aot.Topology("tpu7x:2x2x1", 2).chips, aot.Topology("tpu7x:2x2x1", 2).n_devices) == (8, 16)
    assert all(aot.Topology(f"{c.name}:{'x'.join('2' * c.dimensions)}").hbm_bytes < c.hbm_bytes * 1.01 for c in
               chips.CHIPS.values())  # fmt: skip


@pytest.mark.parametrize(
    ("name", "slices", "words"),
    [
        ("v5litepod-16", 1, "there is no chip 'v5litepod-16'; write one as v4:4x4x4, v5e:4x4"),
        ("v5e:16", 1, "the shape of a v5e slice is 2 numbers of chips"),
        ("v5p:4x4", 1, "the shape of a v5p slice is 3 numbers of chips"),
        ("v5e:0x4", 1, "the shape of a v5e slice"),
        ("v5e:4x4", 0, "--slices=0: must be at least 1"),
    ],
)
def test_a_bad_topology_is_one_sentence(name, slices, words):
    with pytest.raises(UserError, match=words):
        aot.Topology(name, slices)


def test_without_libtpu_it_says_what_to_install(monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"pip install 'moe_jax\[plan\]'"):
        _ = aot.Topology("v5e:2x2").devices


def test_peaks_are_of_one_device():
    assert chips.peak_flops("TPU v5 lite") == 197e12
    assert chips.peak_flops("TPU7x") == 2307e12 / 2
    assert chips.peak_flops("cpu") is None


def test_lowering_allocates_nothing():
    mesh = sharding.make_mesh(MeshConfig(1, 2, 4), jax.devices())
    before = jax.live_arrays()  # held, so that a new array cannot take the id of an earlier test's
    known = set(map(id, before))
    aot.lower_step(config("train.microbatches=2"), VOCABULARY, sharding.Layout(mesh))
    assert [array.shape for array in jax.live_arrays() if id(array) not in known] == []


def test_a_program_that_is_too_large_says_by_how_much():
    said = (
        "RESOURCE_EXHAUSTED: E1000: CompileTimeHbmOom: Ran out of memory on HBM, the total memory required for HLO "
        "temporaries (159.50G) exceeds available HBM (15.75G). HLO module: jit__step."
    )
    assert aot._too_large(jax.errors.JaxRuntimeError(said))["bytes_per_device"] == 159.5 * 2**30
    with pytest.raises(jax.errors.JaxRuntimeError, match="else"):
        aot._too_large(jax.errors.JaxRuntimeError("INTERNAL: something else"))


def test_compiled_goes_through_json():
    values = {f.name: 1 for f in dataclasses.fields(aot.Compiled)} | {"mesh": {"data": 2}, "temp_bytes": None}
    compiled = aot.Compiled(**values)
    assert aot.Compiled.from_dict(json.loads(json.dumps(compiled.to_dict()))) == compiled


def test_a_childs_environment_is_this_ones_and_the_compilers():
    assert aot.environment()["PATH"] and aot.environment()["JAX_PLATFORMS"] == "cpu"


def test_loops_are_counted():
    """A scan of 3 over a product and collectives, within one of 2, on 2 × 4 devices."""
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()).reshape(2, 4), ("a", "b"))

    def local(x_NxNx1):
        def inner(x, _):
            x = jnp.einsum("nm,ml->nl", x, x)
            x = jax.lax.all_to_all(x, "b", 0, 1, tiled=True).reshape(8, 8)
            return x + jax.lax.psum(x, "a"), None

        def outer(x, _):
            return jax.lax.scan(inner, x, None, length=3)[0], None

        return jax.lax.scan(outer, x_NxNx1[..., 0], None, length=2)[0][..., None]

    spec = P(None, None, ("a", "b"))
    mapped = jax.shard_map(local, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=False)
    x = jax.ShapeDtypeStruct((8, 8, 8), jnp.float32, sharding=jax.sharding.NamedSharding(mesh, spec))
    program = hlo.Program(jax.jit(mapped).lower(x).compile().as_text())
    assert program.unknown_loops == 0
    assert sum(p.flops * p.times for p in program.products) == 6 * 2 * 8**3
    seen = {c.kind: (c.bytes * c.times, c.groups.tolist()) for c in program.collectives}
    assert seen["all-to-all"] == (6 * 8 * 8 * 4 * 3 / 4, [[0, 1, 2, 3], [4, 5, 6, 7]])
    assert seen["all-reduce"] == (6 * 8 * 8 * 4 * 2 * 1 / 2, [[0, 4], [1, 5], [2, 6], [3, 7]])


@pytest.mark.parametrize(
    ("text", "groups"),
    [
        ("replica_groups={{0,1},{2,3}}, dimensions={0}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[4], dimensions={0}", [[0, 1], [2, 3]]),
        ("replica_groups=[2,2]<=[2,2]T(1,0), dimensions={0}", [[0, 2], [1, 3]]),
        ("replica_groups=mesh['axis_0'=2,'axis_1'=2] {'axis_0'}, to_apply=%add", [[0, 2], [1, 3]]),
        ("source_target_pairs={{0,1},{1,0}}", [[0, 1], [1, 0]]),
    ],
)
def test_groups_in_every_spelling(text, groups):
    assert hlo._groups(text).tolist() == groups


@pytest.mark.parametrize(
    ("out", "left", "right", "window", "flops"),
    [
        # A product for each of 64 experts, as the TPU compiler writes it: the batch as a dilated spatial dimension.
        ("64,1024,64", "64,1024,256", "64,256,64", "{size=64 stride=63 lhs_dilate=64}, dim_labels=0bf_0io->0bf",
         64 * 2 * 1024 * 256 * 64),
        # Heads as a spatial dimension of the result.
        ("16,256,4,64", "16,256,256,1", "256,4,64,1",
         "{size=1x4 pad=0_0x3_3 rhs_reversal=0x1}, dim_labels=0bf1_i1o0->0b1f", 2 * 16 * 256 * 256 * 4 * 64),
        ("8,32", "8,16", "16,32", "{}, dim_labels=bf_io->bf", 2 * 8 * 16 * 32),
    ],
)  # fmt: skip
def test_products_written_as_convolutions_count_what_is_multiplied(out, left, right, window, flops):
    text = (
        "ENTRY %main (a: f32[1], b: f32[1]) -> f32[1] {\n"
        f"  %a = f32[{left}]{{0}} parameter(0)\n  %b = f32[{right}]{{0}} parameter(1)\n"
        f"  ROOT %c = f32[{out}]{{0}} convolution(%a, %b), window={window}\n}}\n"
    )
    assert [p.flops for p in hlo.Program(text).products] == [flops]
