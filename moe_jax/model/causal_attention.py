"""Causal attention by chunks of queries, with its own backward pass: all scores are never in memory at once.

A chunk of queries meets the keys up to its own end alone, so about half of the scores are computed. The backward pass
computes them again from queries and keys (Dao et al. 2022), which takes less time than to write and read them.

Heads of queries that share a head of keys and values are rows of one product: keys are never repeated.

B  sequences    H   heads                S, T  positions of queries and of keys
Dh width of a head                       N     heads of keys and values, H or a divisor of it
                                         P     rows of one of them: its H / N queries of each position, S H / N
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
    k_BxSxNxDh: jax.Array,
    v_BxSxNxDh: jax.Array,
    document_BxS: jax.Array | None,
    precision: str | None,
) -> jax.Array:
    """y_BxSxHxDh; scores and softmax have at least float32. Head i of the queries meets head i // (H / N) of the keys.

    With document_BxS, the number of each position's document, positions attend to their own alone. `precision` is that
    of the products, as jax.default_matmul_precision takes it."""
    return _attend_fwd(q_BxSxHxDh, k_BxSxNxDh, v_BxSxNxDh, document_BxS, precision)[0]


def _attend_fwd(q, k, v, document_BxS, precision):
    N, group = k.shape[2], q.shape[2] // k.shape[2]
    q_BxNxPxDh, k_BxNxTxDh, v_BxNxTxDh = _rows(q, N), k.swapaxes(1, 2), v.swapaxes(1, 2)
    product = _product(precision)
    y, logsumexp = [], []
    for begin, end in _chunks(q.shape[1]):
        scores_BxNxPxT = _scores(product, q_BxNxPxDh, k_BxNxTxDh, document_BxS, begin, end, group)
        max_BxNxPx1 = scores_BxNxPxT.max(-1, keepdims=True)
        exp_BxNxPxT = jnp.exp(scores_BxNxPxT - max_BxNxPx1)
        sum_BxNxPx1 = exp_BxNxPxT.sum(-1, keepdims=True)
        y.append(product("BNPT,BNTD->BNPD", exp_BxNxPxT.astype(v.dtype), v_BxNxTxDh[:, :, :end]) / sum_BxNxPx1)
        logsumexp.append(max_BxNxPx1 + jnp.log(sum_BxNxPx1))
    y_BxNxPxDh = jnp.concatenate(y, 2).astype(q.dtype)
    return _heads(y_BxNxPxDh, q.shape), (q, k, v, document_BxS, y_BxNxPxDh, jnp.concatenate(logsumexp, 2))


def _attend_bwd(precision, saved, d_y):
    q, k, v, document_BxS, y_BxNxPxDh, logsumexp_BxNxPx1 = saved
    B, S, N, Dh = k.shape
    group = q.shape[2] // N
    q_BxNxPxDh, k_BxNxTxDh, v_BxNxTxDh, d_y_BxNxPxDh = _rows(q, N), k.swapaxes(1, 2), v.swapaxes(1, 2), _rows(d_y, N)
    product, wide, scale = _product(precision), logsumexp_BxNxPx1.dtype, Dh**-0.5
    own_BxNxPx1 = (d_y_BxNxPxDh.astype(wide) * y_BxNxPxDh.astype(wide)).sum(-1, keepdims=True)
    d_q = []
    d_k_BxNxDhxT = jnp.zeros((B, N, Dh, S), wide)  # turned, which XLA:CPU multiplies faster
    d_v_BxNxDhxT = jnp.zeros_like(d_k_BxNxDhxT)
    for begin, end in _chunks(S):
        rows = slice(begin * group, end * group)
        scores_BxNxPxT = _scores(product, q_BxNxPxDh, k_BxNxTxDh, document_BxS, begin, end, group)
        share_BxNxPxT = jnp.exp(scores_BxNxPxT - logsumexp_BxNxPx1[:, :, rows])
        d_share_BxNxPxT = product("BNPD,BNTD->BNPT", d_y_BxNxPxDh[:, :, rows], v_BxNxTxDh[:, :, :end])
        d_scores_BxNxPxT = share_BxNxPxT * (d_share_BxNxPxT - own_BxNxPx1[:, :, rows]) * scale
        share_BxNxPxT, d_scores_BxNxPxT = share_BxNxPxT.astype(v.dtype), d_scores_BxNxPxT.astype(q.dtype)
        d_q.append(product("BNPT,BNTD->BNPD", d_scores_BxNxPxT, k_BxNxTxDh[:, :, :end]))
        d_k = product("BNPD,BNPT->BNDT", q_BxNxPxDh[:, :, rows], d_scores_BxNxPxT)
        d_v = product("BNPD,BNPT->BNDT", d_y_BxNxPxDh[:, :, rows], share_BxNxPxT)
        d_k_BxNxDhxT = d_k_BxNxDhxT.at[..., :end].add(d_k)
        d_v_BxNxDhxT = d_v_BxNxDhxT.at[..., :end].add(d_v)
    d_q_BxSxHxDh = _heads(jnp.concatenate(d_q, 2), q.shape)
    d_k_BxTxNxDh, d_v_BxTxNxDh = (jnp.moveaxis(a, 3, 1) for a in (d_k_BxNxDhxT, d_v_BxNxDhxT))
    return d_q_BxSxHxDh.astype(q.dtype), d_k_BxTxNxDh.astype(k.dtype), d_v_BxTxNxDh.astype(v.dtype), None


attend.defvjp(_attend_fwd, _attend_bwd)


def _rows(x_BxSxHxDh: jax.Array, N: int) -> jax.Array:
    """x_BxNxPxDh: the H / N queries of a position are side by side, so a chunk of positions is a slice of rows."""
    B, S, H, Dh = x_BxSxHxDh.shape
    return x_BxSxHxDh.reshape(B, S, N, H // N, Dh).transpose(0, 2, 1, 3, 4).reshape(B, N, S * H // N, Dh)


def _heads(x_BxNxPxDh: jax.Array, shape: tuple[int, int, int, int]) -> jax.Array:
    """x_BxSxHxDh of that shape: the inverse of `_rows`."""
    (B, S, H, Dh), N = shape, x_BxNxPxDh.shape[1]
    return x_BxNxPxDh.reshape(B, N, S, H // N, Dh).transpose(0, 2, 1, 3, 4).reshape(B, S, H, Dh)


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


def _scores(product, q_BxNxPxDh, k_BxNxTxDh, document_BxS, begin, end, group):
    """scores_BxNxPxT of the queries from begin to end and the keys up to there; -inf where a query may not look."""
    Dh = q_BxNxPxDh.shape[-1]
    rows = slice(begin * group, end * group)
    scores_BxNxPxT = product("BNPD,BNTD->BNPT", q_BxNxPxDh[:, :, rows], k_BxNxTxDh[:, :, :end]) * Dh**-0.5
    position_P = jnp.repeat(jnp.arange(begin, end), group)
    seen = (position_P[:, None] >= jnp.arange(end)[None, :])[None, None]
    if document_BxS is not None:
        document_BxP = jnp.repeat(document_BxS[:, begin:end], group, axis=1)
        seen = seen & (document_BxP[:, None, :, None] == document_BxS[:, None, None, :end])
    return jnp.where(seen, scores_BxNxPxT, -jnp.inf)
