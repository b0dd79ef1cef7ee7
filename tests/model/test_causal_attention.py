"""Attention by chunks of queries is plain attention: outputs, gradients, masks of documents; and it holds no S × S
scores."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.extend.core import jaxprs_in_params

from moe_jax.model import causal_attention
from moe_jax.model.causal_attention import attend
from tests.models import distance

B, H, Dh = 2, 3, 4
GROUP = 2  # heads of queries that share keys, where they do


@pytest.fixture(autouse=True)
def _small_chunks(monkeypatch):
    monkeypatch.setattr(causal_attention, "CHUNK_POSITIONS", 4)


def plain(q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh, document_BxS, precision):
    """With keys and values repeated for the heads of queries that share them."""
    k_BxSxHxDh, v_BxSxHxDh = (
        jnp.repeat(a, q_BxSxHxDh.shape[2] // a.shape[2], axis=2) for a in (k_BxSxNxDh, v_BxSxNxDh)
    )
    S, Dh = q_BxSxHxDh.shape[1], q_BxSxHxDh.shape[3]
    scores_BxHxSxS = jnp.einsum("BSHD,BTHD->BHST", q_BxSxHxDh, k_BxSxHxDh) / Dh**0.5
    seen = jnp.tril(jnp.ones((S, S), bool))[None, None]
    if document_BxS is not None:
        seen = seen & (document_BxS[:, None, :, None] == document_BxS[:, None, None, :])
    share_BxHxSxS = jax.nn.softmax(jnp.where(seen, scores_BxHxSxS, -jnp.inf), axis=-1)
    return jnp.einsum("BHST,BTHD->BSHD", share_BxHxSxS, v_BxSxHxDh)


def given(S, dtype, Dh=Dh, group=1):
    """H heads of keys and values, and `group` of queries for each."""
    heads = (group * H, H, H, group * H)
    q, k, v, d_y = (3 * jax.random.normal(jax.random.key(i), (B, S, h, Dh), dtype) for i, h in enumerate(heads))
    document_BxS = jnp.cumsum(jax.random.bernoulli(jax.random.key(9), 0.2, (B, S)), axis=1)
    return (q, k, v), d_y, document_BxS


def both(attention, qkv, d_y, document_BxS):
    """The output and the gradients of queries, keys and values."""

    def loss(*qkv):
        y = attention(*qkv, document_BxS, "highest")
        return (y * d_y).sum().astype(jnp.float32), y

    (_, y), gradients = jax.jit(jax.value_and_grad(loss, argnums=(0, 1, 2), has_aux=True))(*qkv)
    return y, *gradients


@pytest.mark.parametrize("S", [1, 3, 4, 13, 32, 45])
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("group", [1, GROUP])
def test_it_is_plain_attention(S, masked, group):
    """Chunks of 4 and of more, whole and not; in float64, and in float32 as exact as that is."""
    with jax.enable_x64(True):
        qkv, d_y, document_BxS = given(S, jnp.float64, group=group)
        document_BxS = document_BxS if masked else None
        wanted = both(plain, qkv, d_y, document_BxS)
        for a, b in zip(both(attend, qkv, d_y, document_BxS), wanted, strict=True):
            assert a.dtype == jnp.float64
            np.testing.assert_allclose(a, b, rtol=1e-10, atol=1e-12)
        narrow = tuple(a.astype(jnp.float32) for a in qkv)
        for a, b in zip(both(attend, narrow, d_y.astype(jnp.float32), document_BxS), wanted, strict=True):
            assert a.dtype == jnp.float32
            np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4)


def test_in_bfloat16_softmax_is_in_float32():
    """As close to float64 as values rounded to bfloat16 can be."""
    qkv, d_y, _ = given(40, jnp.bfloat16)
    got = both(attend, qkv, d_y, None)
    with jax.enable_x64(True):
        wanted = both(plain, tuple(a.astype(jnp.float64) for a in qkv), d_y.astype(jnp.float64), None)
        for a, b in zip(got, wanted, strict=True):
            assert a.dtype == jnp.bfloat16
            assert distance(a.astype(jnp.float64), b) < 0.02


def test_large_scores_overflow_nothing():
    qkv, d_y, _ = given(9, jnp.float32)
    q, k, v = qkv
    for a in both(attend, (100 * q, 100 * k, v), d_y, None):
        assert np.all(np.isfinite(a))


def test_all_scores_are_never_held():
    """No array of the forward and backward pass has as many numbers as S × S scores."""
    S = 512
    one = jax.ShapeDtypeStruct((1, S, 1, 8), jnp.float32)

    def loss(*qkv):
        return attend(*qkv, None, None).sum()

    def largest(jaxpr):
        sizes = [v.aval.size for equation in jaxpr.eqns for v in equation.outvars]
        inner = [largest(j) for equation in jaxpr.eqns for j in jaxprs_in_params(equation.params)]
        return max(sizes + inner)

    assert S * S / 8 <= largest(jax.make_jaxpr(jax.grad(loss, argnums=(0, 1, 2)))(one, one, one).jaxpr) < S * S / 2
