"""Causal attention by chunks of queries, with its own backward pass: all scores are never in memory at once.

A chunk of queries meets the keys up to its own end alone, so about half of the scores are computed. The backward pass
computes them again from queries and keys (Dao et al. 2022), which takes less time than to write and read them.

B  sequences    H   heads                S, T  positions of queries and of keys
Dh width of a head
"""

import functools
from collections.abc import Iterator

import jax
import jax.numpy as jnp

from moe_jax.model.precision import accumulation_dtype

CHUNK_POSITIONS = 128  # at least: products of fewer rows are slow
MOST_CHUNKS = 8  # the program grows with them


@functools.partial(jax.custom_vjp, nondiff_argnums=(4,))
def attend(
    q_BxSxHxDh: jax.Array,
    k_BxSxHxDh: jax.Array,
    v_BxSxHxDh: jax.Array,
    document_BxS: jax.Array | None,
    precision: str | None,
) -> jax.Array:
    """y_BxSxHxDh; scores and softmax have at least float32.

    With document_BxS, the number of each position's document, positions attend to their own alone. `precision` is that
    of the products, as jax.default_matmul_precision takes it."""
    return _attend_fwd(q_BxSxHxDh, k_BxSxHxDh, v_BxSxHxDh, document_BxS, precision)[0]


def _attend_fwd(q, k, v, document_BxS, precision):
    q_BxHxSxDh, k_BxHxTxDh, v_BxHxTxDh = (a.swapaxes(1, 2) for a in (q, k, v))
    product = _product(precision)
    y, logsumexp = [], []
    for begin, end in _chunks(q.shape[1]):
        scores_BxHxSxT = _scores(product, q_BxHxSxDh, k_BxHxTxDh, document_BxS, begin, end)
        max_BxHxSx1 = scores_BxHxSxT.max(-1, keepdims=True)
        exp_BxHxSxT = jnp.exp(scores_BxHxSxT - max_BxHxSx1)
        sum_BxHxSx1 = exp_BxHxSxT.sum(-1, keepdims=True)
        y.append(product("BHST,BHTD->BHSD", exp_BxHxSxT.astype(v.dtype), v_BxHxTxDh[:, :, :end]) / sum_BxHxSx1)
        logsumexp.append(max_BxHxSx1 + jnp.log(sum_BxHxSx1))
    y_BxHxSxDh = jnp.concatenate(y, 2).astype(q.dtype)
    return y_BxHxSxDh.swapaxes(1, 2), (q, k, v, document_BxS, y_BxHxSxDh, jnp.concatenate(logsumexp, 2))


def _attend_bwd(precision, saved, d_y):
    q, k, v, document_BxS, y_BxHxSxDh, logsumexp_BxHxSx1 = saved
    q_BxHxSxDh, k_BxHxTxDh, v_BxHxTxDh, d_y_BxHxSxDh = (a.swapaxes(1, 2) for a in (q, k, v, d_y))
    product, wide, scale = _product(precision), logsumexp_BxHxSx1.dtype, q.shape[-1] ** -0.5
    own_BxHxSx1 = (d_y_BxHxSxDh.astype(wide) * y_BxHxSxDh.astype(wide)).sum(-1, keepdims=True)
    d_q = []
    B, S, H, Dh = k.shape
    d_k_BxHxDhxT = jnp.zeros((B, H, Dh, S), wide)  # turned, which XLA:CPU multiplies faster
    d_v_BxHxDhxT = jnp.zeros_like(d_k_BxHxDhxT)
    for begin, end in _chunks(S):
        rows = slice(begin, end)
        scores_BxHxSxT = _scores(product, q_BxHxSxDh, k_BxHxTxDh, document_BxS, begin, end)
        share_BxHxSxT = jnp.exp(scores_BxHxSxT - logsumexp_BxHxSx1[:, :, rows])
        d_share_BxHxSxT = product("BHSD,BHTD->BHST", d_y_BxHxSxDh[:, :, rows], v_BxHxTxDh[:, :, :end])
        d_scores_BxHxSxT = share_BxHxSxT * (d_share_BxHxSxT - own_BxHxSx1[:, :, rows]) * scale
        share_BxHxSxT, d_scores_BxHxSxT = share_BxHxSxT.astype(v.dtype), d_scores_BxHxSxT.astype(q.dtype)
        d_q.append(product("BHST,BHTD->BHSD", d_scores_BxHxSxT, k_BxHxTxDh[:, :, :end]))
        d_k = product("BHSD,BHST->BHDT", q_BxHxSxDh[:, :, rows], d_scores_BxHxSxT)
        d_v = product("BHSD,BHST->BHDT", d_y_BxHxSxDh[:, :, rows], share_BxHxSxT)
        d_k_BxHxDhxT = d_k_BxHxDhxT.at[..., :end].add(d_k)
        d_v_BxHxDhxT = d_v_BxHxDhxT.at[..., :end].add(d_v)
    d_q_BxSxHxDh = jnp.concatenate(d_q, 2).swapaxes(1, 2)
    d_k_BxTxHxDh, d_v_BxTxHxDh = (jnp.moveaxis(a, 3, 1) for a in (d_k_BxHxDhxT, d_v_BxHxDhxT))
    return d_q_BxSxHxDh.astype(q.dtype), d_k_BxTxHxDh.astype(k.dtype), d_v_BxTxHxDh.astype(v.dtype), None


attend.defvjp(_attend_fwd, _attend_bwd)


def _chunks(S: int) -> Iterator[tuple[int, int]]:
    """(begin, end) of the chunks of queries."""
    size = max(CHUNK_POSITIONS, -(-S // MOST_CHUNKS))
    return ((begin, min(begin + size, S)) for begin in range(0, S, size))


def _product(precision):
    """einsum with this precision, whose sums have at least float32."""

    def product(equation, a, b):
        wide = accumulation_dtype(a.dtype)
        return jnp.einsum(equation, a, b, precision=precision, preferred_element_type=wide)

    return product


def _scores(product, q_BxHxSxDh, k_BxHxTxDh, document_BxS, begin, end):
    """scores_BxHxSxT of the queries from begin to end and the keys up to there; -inf where a query may not look."""
    Dh = q_BxHxSxDh.shape[-1]
    scores_BxHxSxT = product("BHSD,BHTD->BHST", q_BxHxSxDh[:, :, begin:end], k_BxHxTxDh[:, :, :end]) * Dh**-0.5
    seen = (jnp.arange(begin, end)[:, None] >= jnp.arange(end)[None, :])[None, None]
    if document_BxS is not None:
        seen = seen & (document_BxS[:, None, begin:end, None] == document_BxS[:, None, None, :end])
    return jnp.where(seen, scores_BxHxSxT, -jnp.inf)
