"""The choices that are observed are those that the model makes: by a router built by hand, and on any mesh."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.config import counts
from moe_jax.evaluation.routing import observation
from moe_jax.evaluation.routing.inspection import routing_of
from moe_jax.evaluation.routing.observation import Observer
from tests.models import EXPERT_CHOICE, VOCABULARY, config, trainer

MESHES = ({}, {"data": 2, "expert": 4}, {"data": 8}, {"expert": 8})


@dataclasses.dataclass(frozen=True)
class Windows:
    """Held-out windows of given tokens."""

    rows: np.ndarray  # int32 [sequences, S + 1]

    @property
    def sequences(self):
        return len(self.rows)

    @property
    def sequence_length(self):
        return self.rows.shape[1] - 1

    def batch(self, rows):
        return self.rows[rows]


def random_windows(c, sequences, seed=0):
    shape = (sequences, c.data.sequence_length + 1)
    return Windows(np.random.default_rng(seed).integers(0, VOCABULARY, shape, np.int32))


def layers_of(c, windows, weights=None, **mesh):
    t = trainer(c, **mesh)
    weights = t.init(0).weights if weights is None else weights(t)
    return routing_of(Observer(t), weights, windows, c, VOCABULARY, str)


def by_hand(t):
    """Weights with which token v has experts v % 7 and v % 7 + 8 of 16: only v % 7 is left in its hidden state."""
    weights = jax.tree.map(jnp.asarray, jax.device_get(t.init(0).weights))
    d = t.config.model.d_model
    weights["tokens_Vxd"] = jnp.eye(d)[jnp.arange(VOCABULARY) % 7]
    weights["positions_Sxd"] = jnp.zeros_like(weights["positions_Sxd"])
    blocks = weights["blocks"]
    blocks["attention"]["w_o_HxDhxd"] = jnp.zeros_like(blocks["attention"]["w_o_HxDhxd"])
    blocks["moe"]["w_out_Exfxd"] = jnp.zeros_like(blocks["moe"]["w_out_Exfxd"])
    router_dxE = jnp.zeros((d, 16)).at[jnp.arange(7), jnp.arange(7)].set(10.0)
    router_dxE = router_dxE.at[jnp.arange(7), jnp.arange(7) + 8].set(5.0)
    blocks["moe"]["router_dxE"] = jnp.broadcast_to(router_dxE, blocks["moe"]["router_dxE"].shape)
    return jax.device_put(weights, t.shardings.weights)


@pytest.mark.parametrize("dispatch", ["dropless", "slots"])
@pytest.mark.parametrize("mesh", MESHES[:2], ids=str)
def test_a_router_built_by_hand(dispatch, mesh):
    """20 windows in batches of 16: the second batch is not full."""
    c = config(f"moe.dispatch={dispatch}")
    windows = random_windows(c, 20)
    tokens = windows.rows[:, :-1].reshape(-1)
    wanted = np.bincount(tokens % 7, minlength=7)
    for layer in layers_of(c, windows, by_hand, **mesh):
        assert layer.load == (*wanted, 0, *wanted, 0) and layer.unused == 2
        assert sum(layer.load) == tokens.size * 2
        assert {(a, b) for a, b, _, _ in layer.pairs} == {(e, e + 8) for e in range(7)}
        assert all(seen == wanted[a] for a, _, seen, _ in layer.pairs)
        for e in range(7):
            listed = [(int(text), share) for text, share, _ in layer.top_tokens[str(e)]]
            ids, n = np.unique(tokens[tokens % 7 == e], return_counts=True)
            assert dict(listed) == pytest.approx(dict(zip(ids.tolist(), n / wanted[e], strict=True)))
        assert 0 <= layer.entropy < 1e-3
        if dispatch == "slots":
            groups = windows.rows[:, :-1].reshape(20, -1) % 7
            load = np.stack([np.bincount(group, minlength=7) for group in groups])
            over = 2 * np.maximum(load - counts.capacity(c), 0).sum()
            assert layer.dropped_fraction == pytest.approx(over / (tokens.size * 2))


@pytest.mark.parametrize("overrides", [("moe.dispatch=dropless",), ("moe.dispatch=slots", "moe.group_sequences=2")])
def test_any_mesh_gives_the_same_loads(overrides):
    c = config(*overrides)
    windows = random_windows(c, 24)
    one = layers_of(c, windows)
    for mesh in MESHES[1:3]:
        for layer, wanted in zip(layers_of(c, windows, **mesh), one, strict=True):
            assert (layer.load, layer.together) == (wanted.load, wanted.together)
            assert layer.entropy == pytest.approx(wanted.entropy, rel=1e-5)
            assert layer.top_tokens == wanted.top_tokens


def test_smaller_batches_give_the_same_loads(monkeypatch):
    c = config("moe.dispatch=dropless", "moe.group_sequences=2")
    windows = random_windows(c, 22)
    one = layers_of(c, windows)
    monkeypatch.setattr(observation, "CHOICES_BYTES", 5 * 2 * 16 * 16)  # five sequences: two groups
    for layer, wanted in zip(layers_of(c, windows), one, strict=True):
        assert (layer.load, layer.together, layer.top_tokens) == (wanted.load, wanted.together, wanted.top_tokens)
    t = trainer(c)
    assert {len(seen.tokens_BxS) for seen in Observer(t).choices(t.init(0).weights, windows)} == {4, 2}


def test_experts_that_choose_have_one_load():
    """On every mesh, also where devices exchange sequences for positions to have whole groups."""
    c = config(*EXPERT_CHOICE)
    windows = random_windows(c, 16)
    one = layers_of(c, windows)
    for layer in one:
        assert set(layer.load) == {16 * 16 * 2 // 16}
        assert 0 < layer.tokens_without_expert < 1 and layer.dropped_fraction is None
    for mesh in MESHES[1:]:
        for layer, wanted in zip(layers_of(c, windows, **mesh), one, strict=True):
            assert (layer.load, layer.together) == (wanted.load, wanted.together)


def test_what_is_dropped_is_what_the_model_drops():
    """In the first layer, which dispatch has not changed yet; all 16 windows are one batch."""
    c = config("moe.dispatch=slots", "moe.capacity_factor=1.0")
    t, windows = trainer(c), random_windows(c, 16)
    weights = t.init(0).weights
    layers = routing_of(Observer(t), weights, windows, c, VOCABULARY, str)
    _, statistics = jax.jit(lambda weights, tokens: t.model(weights)(tokens))(weights, windows.rows[:, :-1])
    assert layers[0].dropped_fraction == pytest.approx(float(statistics["dropped_fraction"][0]), rel=1e-6) != 0
    assert layers[0].load == tuple(np.asarray(statistics["load_E"])[0].tolist())
    assert layers[0].entropy == pytest.approx(float(statistics["entropy"][0]), rel=1e-5)


def test_training_sees_no_choices():
    c = config()
    t = trainer(c)
    _, statistics = jax.eval_shape(t.model(t.init(0).weights), random_windows(c, 16).rows[:, :-1])
    assert set(statistics) == {"balance", "z", "entropy", "dropped_fraction", "load_E"}
