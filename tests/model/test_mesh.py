"""A run means the same on every mesh: losses and gradients, in any cut of the batch, the experts and the parameters."""

import json
import subprocess
import sys

import jax
import numpy as np
import pytest

from moe_jax.config import schema
from moe_jax.errors import UserError
from moe_jax.model import sharding
from moe_jax.training import optimizer
from tests.conftest import ROOT, child_environment
from tests.models import EXPERT_CHOICE, config, distance, loss_and_gradients, put, trainer, windows

ROUTERS = {
    "token choice": (),
    "expert choice": (*EXPERT_CHOICE, "train.batch_sequences=32"),  # a quarter of which holds whole groups
    "published shapes": (
        "model.n_heads=4", "model.n_kv_heads=2", "model.head_dim=6", "model.qk_norm=full", "model.positions=rope",
        "model.tied_embeddings=True", "moe.active_rate=1.5", "moe.score=sigmoid", "moe.renormalise=True",
        "moe.routed_scale=2.5", "moe.expert_groups=4", "moe.chosen_groups=2", "moe.bias_update_rate=0.01",
        "moe.shared_experts=1", "moe.shared_gate=True",
    ),
    "dropless": ("moe.dispatch=dropless", "moe.bias_update_rate=0.01"),
}  # fmt: skip
MESHES = [
    {"data": 2},
    {"expert": 2},
    {"data": 2, "expert": 2},
    {"data": 8},
    {"expert": 8},
    {"replica": 2, "data": 2, "expert": 2},
]


@pytest.fixture(scope="module", params=ROUTERS)
def alone(request):
    """(overrides, loss, gradients) on one device in one microbatch."""
    overrides = ROUTERS[request.param]
    c = config(*overrides)
    return overrides, *loss_and_gradients(trainer(c), windows(c))


def check(alone, t):
    _, loss, gradients = alone
    other, others = loss_and_gradients(t, windows(t.config))
    assert other == pytest.approx(loss, rel=1e-5)
    assert others.keys() == gradients.keys()
    for name, gradient in gradients.items():
        assert distance(others[name], gradient) < 1e-5, name


@pytest.mark.parametrize("mesh", MESHES, ids=str)
def test_meshes_agree(alone, mesh):
    check(alone, trainer(config(*alone[0]), **mesh))


@pytest.mark.parametrize(("microbatches", "mesh"), [(4, {}), (2, {"data": 2, "expert": 2})], ids=str)
def test_microbatches_agree(alone, microbatches, mesh):
    check(alone, trainer(config(*alone[0], f"train.microbatches={microbatches}"), **mesh))


@pytest.mark.parametrize("mesh", [{"data": 2, "expert": 4}, {"expert": 2}], ids=str)
def test_biases_are_the_same_on_every_mesh(mesh):
    """They follow the loads of the whole batch, whatever the microbatches; evaluation takes them as they are."""
    found = []
    for microbatches, devices in ((1, {}), (2, mesh)):
        c = config(*ROUTERS["dropless"], f"train.microbatches={microbatches}")
        t = trainer(c, **devices)
        state = t.init(0)
        for step in range(3):
            state, metrics = t.step(state, put(t, windows(c, step)), optimizer.schedule_of(c))
        part = jax.device_put(windows(c, 9)[: 16 // microbatches], t.evaluate_sharding)
        losses, _ = t.evaluate("dropless", state.weights, part)
        found.append((jax.device_get(state.router), float(metrics["max_over_mean_load"]), losses))
    (one, load, losses), (other, other_load, other_losses) = found
    (bias_LxE,), (other_bias_LxE,) = map(jax.tree.leaves, (one, other))
    assert np.array_equal(bias_LxE, other_bias_LxE) and len(np.unique(bias_LxE)) > 2 and load == other_load
    np.testing.assert_allclose(losses[: len(other_losses)], other_losses, rtol=1e-5)


def test_the_initial_state_is_the_same_on_every_mesh():
    one, many = (trainer(config(), **mesh).init(3) for mesh in ({}, {"data": 2, "expert": 4}))
    for a, b in zip(jax.tree.leaves(one), jax.tree.leaves(many), strict=True):
        assert np.array_equal(a, b)


def test_parameters_are_cut_as_the_rules_say():
    t = trainer(config(), data=2, expert=4)
    params = t.init(0).params
    experts = params["blocks"]["moe"]["w_in_ExdxF"]
    assert experts.sharding.shard_shape(experts.shape) == (2, 16 // 4, 16 // 2, 32)
    assert "blocks.moe.w_in_ExdxF" in t.parameter_table() and "all parameters" in t.parameter_table()


@pytest.mark.parametrize(
    ("overrides", "mesh", "words"),
    [
        ((), {"expert": 3}, "is not the 8 devices"),
        (("train.batch_sequences=4",), {"expert": 8}, "4 sequences cannot be cut over 8 devices"),
        (("moe.granularity=1", "moe.expansion_rate=4"), {"expert": 8}, "must divide the 4 experts"),
        (("moe.group_sequences=4",), {"expert": 8}, "a device holds 2 sequences of 16 tokens"),
        ((*EXPERT_CHOICE, "moe.group_sequences=16"), {"replica": 2, "expert": 4}, "no whole routing groups"),
    ],
)
def test_a_mesh_that_does_not_fit_is_refused(overrides, mesh, words):
    c = config(*overrides)
    with pytest.raises(UserError, match=words):
        mesh_config = schema.MeshConfig(**({"replica": 1, "data": 1, "expert": 1} | mesh))
        sharding.check_fit(c, sharding.make_mesh(mesh_config, jax.devices()))


def test_one_axis_may_be_what_is_left():
    mesh = sharding.make_mesh(schema.MeshConfig(1, 2, -1), jax.devices())
    assert dict(mesh.shape) == {"replica": 1, "data": 2, "expert": 4}


_LONG = """
import json, sys
from tests.models import config, put, trainer, windows
from moe_jax.training import optimizer
overrides, microbatches, mesh = map(json.loads, sys.argv[1:])
c = config("model.compute_dtype=float64", "train.tokens=25600", f"train.microbatches={microbatches}", *overrides)
t = trainer(c, **mesh)
state, losses = t.init(0), []
for step in range(100):
    state, metrics = t.step(state, put(t, windows(c, step)), optimizer.schedule_of(c))
    losses.append(float(metrics["loss"]))
print(json.dumps(losses))
"""


@pytest.mark.slow
@pytest.mark.parametrize("router", ROUTERS)
def test_a_hundred_steps_in_float64_agree(router):
    """In float32 a routing near-tie flips sooner or later; in float64 the bar is 1e-10 after 100 steps."""
    found = []
    for microbatches, mesh in ((1, {}), (2, {"data": 2, "expert": 4})):
        command = [sys.executable, "-c", _LONG, *map(json.dumps, (ROUTERS[router], microbatches, mesh))]
        environment = child_environment(8, JAX_ENABLE_X64="true")
        done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900)
        assert done.returncode == 0, done.stderr
        found.append(json.loads(done.stdout.splitlines()[-1]))
    assert len(found[0]) == 100 and found[0][-1] != found[0][0]
    np.testing.assert_allclose(found[1], found[0], rtol=1e-10)
