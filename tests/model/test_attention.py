"""Attention of published models' shapes, written out: heads that share keys, widths of their own, norms and angles."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from moe_jax.config.schema import MeshConfig
from moe_jax.model.attention import Attention
from moe_jax.model.sharding import Layout, make_mesh
from tests.models import config, distance

B, S, d = 2, 6, 16
SHAPES = {
    "grouped": ("model.n_heads=4", "model.n_kv_heads=2"),
    "one head of keys": ("model.n_heads=4", "model.n_kv_heads=1"),
    "wide heads": ("model.n_heads=3", "model.head_dim=12"),
    "norm of each head": ("model.n_heads=4", "model.n_kv_heads=2", "model.qk_norm=head", "model.norm_eps=0.1"),
    "norm of all heads": ("model.n_heads=4", "model.n_kv_heads=2", "model.qk_norm=full", "model.norm_eps=0.1"),
    "angles": ("model.positions=rope", "model.rope_theta=100"),
    "all": (
        "model.n_heads=4", "model.n_kv_heads=2", "model.head_dim=6", "model.qk_norm=full", "model.positions=rope",
        "model.rope_theta=1e10",
    ),
}  # fmt: skip


def attention(c):
    """(graph, state) on one device, with scales of norms that are not 1."""
    layout = Layout(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))
    graph, state = nnx.split(Attention(c.model, layout, jax.random.key(0)))
    rng = np.random.default_rng(3)
    return graph, jax.tree.map(lambda w: 3 * w * rng.uniform(0.5, 1.5, w.shape).astype(w.dtype), state)


def written_out(m, params, x_BxSxd):
    """y_BxSxd in float64: one head of one position of one sequence after the other."""
    x_BxSxd = np.asarray(x_BxSxd, np.float64)
    w = {name: np.asarray(w, np.float64) for name, w in params.items() if name.startswith("w_")}

    def normed(norm, values):
        scale = np.asarray(params[norm]["scale"], np.float64)
        return values / np.sqrt(np.mean(values**2) + m.norm_eps) * scale

    def projected(weights, norm, x_d, position):
        """Queries or keys of all heads at one position."""
        heads = np.einsum("d,dHD->HD", x_d, weights)
        if m.qk_norm == "full":
            heads = normed(norm, heads.reshape(-1)).reshape(heads.shape)
        if m.qk_norm == "head":
            heads = np.stack([normed(norm, head) for head in heads])
        half = m.head_dim // 2
        for i in range(half if m.positions == "rope" else 0):
            angle = position * float(m.rope_theta) ** (-i / half)
            a, b = heads[:, i].copy(), heads[:, i + half].copy()
            heads[:, i] = a * np.cos(angle) - b * np.sin(angle)
            heads[:, i + half] = b * np.cos(angle) + a * np.sin(angle)
        return heads

    y_BxSxd = np.zeros_like(x_BxSxd)
    for b in range(len(x_BxSxd)):
        k = [projected(w["w_k_dxNxDh"], "k_norm", x, t) for t, x in enumerate(x_BxSxd[b])]
        v = [np.einsum("d,dHD->HD", x, w["w_v_dxNxDh"]) for x in x_BxSxd[b]]
        for s in range(x_BxSxd.shape[1]):
            q = projected(w["w_q_dxHxDh"], "q_norm", x_BxSxd[b, s], s)
            for h in range(m.n_heads):
                kv = h // (m.n_heads // m.n_kv_heads)
                scores = np.array([q[h] @ k[t][kv] for t in range(s + 1)]) / np.sqrt(m.head_dim)
                share = np.exp(scores - scores.max())
                share /= share.sum()
                y_BxSxd[b, s] += sum(share[t] * v[t][kv] for t in range(s + 1)) @ w["w_o_HxDhxd"][h]
    return y_BxSxd


@pytest.mark.parametrize("overrides", SHAPES.values(), ids=SHAPES)
def test_it_is_attention_written_out(overrides):
    c = config(*overrides)
    graph, state = attention(c)
    x_BxSxd = jax.random.normal(jax.random.key(1), (B, S, d))
    y_BxSxd = jax.jit(lambda state, x: nnx.merge(graph, state)(x))(state, x_BxSxd)
    wanted = written_out(c.model, nnx.to_pure_dict(state), x_BxSxd)
    assert distance(np.asarray(y_BxSxd), wanted) < 1e-5


@pytest.mark.parametrize("qk_norm", ["none", "head"])
def test_shared_keys_are_repeated_keys(qk_norm):
    """Outputs and gradients are those of a model with a copy of the keys' head for every head of queries; the gradient
    of a shared head is the sum over its copies."""
    given = ("model.n_heads=4", "model.positions=rope", f"model.qk_norm={qk_norm}")
    graph, state = attention(config(*given, "model.n_kv_heads=2"))
    whole, _ = attention(config(*given))
    shared = nnx.to_pure_dict(state)
    repeated = {name: jnp.repeat(w, 2, axis=1) if "xNxDh" in name else w for name, w in shared.items()}
    x_BxSxd, d_y_BxSxd = (jax.random.normal(jax.random.key(i), (B, S, d)) for i in (1, 2))

    def both(graph, params):
        def loss(params, x_BxSxd):
            y_BxSxd = nnx.merge(graph, params)(x_BxSxd)
            return (y_BxSxd * d_y_BxSxd).sum(), y_BxSxd

        (_, y), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))(params, x_BxSxd)
        return y, gradients

    y, (d_params, d_x) = both(graph, _as_state(state, shared))
    y_whole, (d_whole, d_x_whole) = both(whole, _as_state(attention(config(*given))[1], repeated))
    assert distance(np.asarray(y), np.asarray(y_whole)) < 1e-5
    assert distance(np.asarray(d_x), np.asarray(d_x_whole)) < 1e-5
    d_params, d_whole = nnx.to_pure_dict(d_params), nnx.to_pure_dict(d_whole)
    for name, gradient in d_params.items():
        for one, other in zip(jax.tree.leaves(gradient), jax.tree.leaves(d_whole[name]), strict=True):
            if "xNxDh" in name:
                other = other.reshape(d, 2, 2, -1).sum(2)
            assert np.abs(one).max() > 0 and distance(np.asarray(one), np.asarray(other)) < 1e-5, name


def _as_state(state, params):
    nnx.replace_by_pure_dict(state, params)
    return state
