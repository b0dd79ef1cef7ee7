"""Every optimizer against its formulas, matrix by matrix; on every mesh; stopped and started again."""

import os
import signal

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.traverse_util import flatten_dict, unflatten_dict

from moe_jax import errors
from moe_jax.model.matrices import matrices_of
from moe_jax.training import optimizer
from tests.faults import outcome
from tests.models import OPTIMIZERS, config, distance, put, trainer, windows
from tests.training.test_run import flags, go  # noqa: F401 (flags is a fixture)

GATED = ("model.activation=swiglu", "model.positions=rope", "moe.shared_experts=1")


def matrices_in(path, p, gated=True):
    """The matrices of a parameter of two layers, one after the other, by hand; None where it takes AdamW."""
    name = path[-1]
    if name.startswith(("w_q", "w_k", "w_v")):
        return [x.reshape(x.shape[0], -1) for x in p]
    if name.startswith("w_o_"):
        return [x.reshape(-1, x.shape[-1]) for x in p]
    if name.startswith("w_"):
        each = [x for layer in p for x in (layer if "Ex" in name else [layer])]
        return [y for x in each for y in (np.split(x, 2, 1) if "w_in" in name and gated else [x])]
    return None


def newton_schulz(x):
    """Five steps of Jordan et al.'s quintic, in float64."""
    x = x / (np.linalg.norm(x) + 1e-8)
    for _ in range(5):
        a = x @ x.T
        x = 3.4445 * x + (-4.7750 * a + 2.0315 * a @ a) @ x
    return x


def directions(c, steps=3):
    """({parameter: its gradients}, {parameter: its directions}), each one after the other, of random gradients."""
    t = trainer(c)
    params = t.init(0).params
    state, update = t._optimizer.init(params), jax.jit(t._optimizer.update)
    gradients, found = {}, {}
    for step in range(steps):
        random = np.random.default_rng(step)
        gradient = jax.tree.map(lambda p, r=random: r.standard_normal(p.shape).astype(np.float32), params)
        with jax.numpy_dtype_promotion("standard"):
            direction, state = update(gradient, state, params)
        for path, g in flatten_dict(gradient).items():
            gradients.setdefault(path, []).append(g)
            found.setdefault(path, []).append(np.asarray(flatten_dict(direction)[path]))
    return gradients, found


def test_muon_orthogonalises_every_matrix_and_adam_takes_the_rest():
    gradients, found = directions(config(*OPTIMIZERS["muon"], *GATED))
    by_muon = {path for path, (g, *_) in gradients.items() if matrices_in(path, g) is not None}
    assert {path[-1] for path in by_muon} == {
        "w_q_dxHxDh", "w_k_dxNxDh", "w_v_dxNxDh", "w_o_HxDhxd", "w_in_ExdxF", "w_out_Exfxd", "w_in_dxF", "w_out_fxd",
    }  # fmt: skip
    for path in by_muon:
        momentum = 0.0
        for t, (g, u) in enumerate(zip(gradients[path], found[path], strict=True), 1):
            momentum = 0.95 * momentum + 0.05 * g.astype(np.float64)
            mixed = 0.95 * momentum / (1 - 0.95 ** (t + 1)) + 0.05 * g / (1 - 0.95**t)
            for x, y in zip(matrices_in(path, mixed), matrices_in(path, u), strict=True):
                np.testing.assert_allclose(y, 0.2 * max(x.shape) ** 0.5 * newton_schulz(x), atol=2e-3)
                singular = np.linalg.svd(y / (0.2 * max(x.shape) ** 0.5), compute_uv=False)
                assert singular.max() < 1.3 and abs(np.median(singular) - 1) < 0.35
                assert np.sqrt(np.mean(y**2)) == pytest.approx(0.2, rel=0.25)  # as AdamW's updates, whatever the shape
    adam = optax.scale_by_adam(0.9, 0.95, eps=1e-8)
    rest = [path for path in gradients if path not in by_muon]
    assert {"router_dxE", "tokens_Vxd", "head_dxV", "scale", "bias"} == {path[-1] for path in rest}
    for path in rest:
        state = adam.init(gradients[path][0])
        for g, u in zip(gradients[path], found[path], strict=True):
            with jax.numpy_dtype_promotion("standard"):
                expected, state = adam.update(g, state)
            np.testing.assert_allclose(u, expected, rtol=1e-5)


def test_an_expert_without_tokens_is_not_moved_by_muon():
    t = trainer(config(*OPTIMIZERS["muon"]))
    zeros = jax.tree.map(jnp.zeros_like, t.init(0).params)
    with jax.numpy_dtype_promotion("standard"):
        direction, _ = t._optimizer.update(zeros, t._optimizer.init(zeros))
    assert all(not np.any(u) for u in jax.tree.leaves(direction))


def test_lion_is_the_sign_of_its_mixed_momentum():
    gradients, found = directions(config(*OPTIMIZERS["lion"], "optim.betas=(0.9,0.99)"))
    for path, given in gradients.items():
        momentum = np.zeros_like(given[0])
        for g, u in zip(given, found[path], strict=True):
            assert np.array_equal(u, np.sign(0.9 * momentum + 0.1 * g)), path
            momentum = 0.99 * momentum + 0.01 * g


SHAPES = {
    ("blocks", "attention", "w_q_dxHxDh"): (2, 128, 4, 32),
    ("blocks", "attention", "w_o_HxDhxd"): (2, 4, 33, 128),
    ("blocks", "moe", "w_in_ExdxF"): (2, 3, 128, 260),
    ("blocks", "moe", "w_out_Exfxd"): (2, 3, 130, 128),
    ("blocks", "moe", "router_dxE"): (2, 128, 3),
    ("blocks", "norm", "scale"): (2, 128),
    ("tokens_Vxd",): (200, 128),
    ("norm", "scale"): (128,),
}
FACTORED = {path for path in SHAPES if path[-1] not in ("router_dxE", "scale")}


@pytest.mark.parametrize("momentum", [None, 0.9])
def test_adafactor_is_optax_adafactor_of_every_matrix(momentum):
    """Also where a parameter holds many; its second moments take a row and a column of each."""
    c = config(*OPTIMIZERS["adafactor"], f"optim.momentum={momentum}").optim
    t = optimizer.transformation(c, {path: matrices_of(path, s, gated=True) for path, s in SHAPES.items()}, {})
    random = np.random.default_rng(0)
    params = {path: random.standard_normal(shape).astype(np.float32) for path, shape in SHAPES.items()}
    gradients = [{path: random.standard_normal(p.shape).astype(np.float32) for path, p in params.items()}
                 for _ in range(3)]  # fmt: skip
    state, found = t.init(unflatten_dict(params)), []
    assert flatten_dict(state.shorter).keys() == flatten_dict(state.longer).keys() == FACTORED
    assert flatten_dict(state.whole).keys() == params.keys() - FACTORED
    assert (state.shorter["blocks"]["moe"]["w_in_ExdxF"].shape, state.longer["tokens_Vxd"].shape) == (
        (2, 3, 2, 128), (200,),
    )  # fmt: skip
    update = jax.jit(t.update)
    with jax.numpy_dtype_promotion("standard"):
        for g in gradients:
            direction, state = update(unflatten_dict(g), state, unflatten_dict(params))
            found.append(flatten_dict(direction))
        for path, p in params.items():
            layers = [p] if path[0] != "blocks" else list(p)

            def parts(x, path=path):
                return matrices_in(path, x) or ([x] if path[0] != "blocks" else list(x))

            assert len(layers) in (1, 2)
            for i, one in enumerate(parts(p)):
                oracle = optax.adafactor(1.0, momentum=momentum)
                other = oracle.init(one)
                for g, u in zip(gradients, found, strict=True):
                    expected, other = oracle.update(parts(g[path])[i], other, one)
                    np.testing.assert_allclose(parts(u[path])[i], -expected, rtol=2e-4, atol=1e-6)


WIDE = ("model.d_model=128", "moe.granularity=1", "moe.expansion_rate=8", "model.d_ff=128", "model.n_heads=2")
FIRST_STEPS = ("optim.warmup_fraction=0", "optim.learning_rate=0.003")  # the whole rate


@pytest.mark.parametrize(
    "mesh", [{"data": 2, "expert": 4}, *(pytest.param({a: 8}, marks=pytest.mark.slow) for a in ("data", "expert"))],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("name", list(OPTIMIZERS)[1:])
def test_an_update_is_the_same_on_every_mesh(name, mesh):
    """Also where it cuts the matrices; the step compiles once, and its state comes out laid out as it went in."""
    c = config(*OPTIMIZERS[name], *WIDE, *FIRST_STEPS, "model.activation=swiglu")
    found = []
    for devices in ({}, mesh):
        t = trainer(c, **devices)
        state = before = t.init(0)
        shardings = jax.tree.map(lambda x: x.sharding, state)
        first = jax.device_get(before.params)
        states = []
        for step in range(2):
            state, _ = t.step(state, put(t, windows(c, step)), optimizer.schedule_of(c))
            assert jax.tree.all(jax.tree.map(lambda x, s: x.sharding == s, state, shardings))
            states.append(jax.device_get(state.params))
        assert t.step._cache_size() == 1
        found.append(flatten_dict(states[0]))
    for path, before in flatten_dict(first).items():
        one, other = found[0][path], found[1][path]
        assert distance(other, one) < 1e-5, path
        assert np.any(one != before), path
    if name == "muon":
        momentum = state.opt_state.momentum["blocks"]["moe"]["w_in_ExdxF"]
        assert momentum.sharding == state.params["blocks"]["moe"]["w_in_ExdxF"].sharding
    if name == "adafactor" and "expert" in mesh:
        moments = state.opt_state.shorter["blocks"]["moe"]["w_in_ExdxF"]
        assert moments.sharding.shard_shape(moments.shape) == (2, 8 // mesh["expert"], 2, 128)


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_the_table_says_what_updates_each_parameter(name):
    table = trainer(config(*OPTIMIZERS[name], *WIDE, *GATED, "moe.bias_update_rate=0.01")).parameter_table()
    by = {line.split("  ")[0].rpartition(".")[2]: line for line in table.splitlines()}
    experts, router = by["w_in_ExdxF"], by["router_dxE"]
    if name == "muon":
        assert "muon, 32 of 128×128" in experts and "adamw" in router
    elif name == "adafactor":
        assert "adafactor, 32 of 128×128" in experts and "adafactor, not factored" in router
    else:
        assert f" {name} " in experts and f" {name} " in router
    assert " load " in by["bias_E"]


@pytest.mark.parametrize("name", list(OPTIMIZERS)[1:])
def test_stopped_and_started_again_gives_the_same_bits(name, flags, tmp_path):  # noqa: F811
    flags = [*flags, *(f"--config.{o}" for o in OPTIMIZERS[name])]
    whole, result = go(flags, tmp_path / "whole")
    assert result.status == "done"

    def stop(beat):
        if beat.step == 7:
            os.kill(os.getpid(), signal.SIGTERM)

    with pytest.raises(errors.Stopped, match="stopped at step"):
        go(flags, tmp_path / "stopped", on_step=stop)
    folder, _ = go(flags, tmp_path / "stopped")
    assert outcome(folder) == outcome(whole)
