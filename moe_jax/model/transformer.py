"""The decoder: pre-norm blocks, scanned, so that compile time does not grow with depth.

B  sequences of the batch    d  d_model
S  positions                 V  vocabulary
L  layers (blocks)
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import nnx
from jax.sharding import PartitionSpec as P

from moe_jax.config.schema import Config
from moe_jax.model.attention import Attention
from moe_jax.model.cross_entropy import summed_loss, token_losses, token_scores, unembed
from moe_jax.model.layers import FeedForward, Norm, weight
from moe_jax.model.moe import MoeLayer
from moe_jax.model.precision import accumulation_dtype
from moe_jax.model.remat import rematerialised
from moe_jax.model.sharding import AXES, Layout

# On one CPU few and wide layers are not scanned: a scan copies each layer's parameters out of the stack, and their
# gradients into it. With narrow layers that takes less time than to compile the longer program.
UNROLLED_LAYERS, UNROLLED_D_MODEL = 8, 128  # at most, at least


class Block(nnx.Module):
    """A pre-norm block: x + attention(norm(x)), then x + feed-forward(norm(x)).

    The feed-forward is a MoE layer unless the run is dense."""

    def __init__(self, config: Config, layout: Layout, key: jax.Array):
        k_attention, k_ff = jax.random.split(key)
        self.attention_norm = Norm(config.model)
        self.attention = Attention(config.model, layout, k_attention)
        self.ff_norm = Norm(config.model)
        if config.moe is None:
            self.ff = FeedForward(config.model, layout, k_ff)
        else:
            self.moe = MoeLayer(config, layout, k_ff)

    def __call__(
        self, x_BxSxd: jax.Array, document_BxS: jax.Array | None = None
    ) -> tuple[jax.Array, dict[str, jax.Array]]:
        x_BxSxd = x_BxSxd + self.attention(self.attention_norm(x_BxSxd), document_BxS)
        h_BxSxd = self.ff_norm(x_BxSxd)
        y_BxSxd, statistics = self.moe(h_BxSxd) if hasattr(self, "moe") else (self.ff(h_BxSxd), {})
        return x_BxSxd + y_BxSxd, statistics


class Transformer(nnx.Module):
    """The language model: hidden states and losses from tokens, without ever holding all logits.

    `end_of_document` is the token that ends a document; only data.mask_documents needs it (ValueError without it)."""

    def __init__(
        self,
        config: Config,
        vocab_size: int,
        layout: Layout,
        key: jax.Array,
        end_of_document: int | None = None,
    ):
        if config.data.mask_documents and end_of_document is None:
            raise ValueError("data.mask_documents needs the store's end_of_document token")
        self.config, self.layout, self.end_of_document = config, layout, end_of_document
        m = config.model
        k_tokens, k_positions, k_blocks, k_head = jax.random.split(key, 4)
        # A table that is the unembedding too begins as one: with a fan-in of 1 the first logits would be √d times as
        # large. Positions are added to tokens, so they have the same scale.
        fan_in = m.d_model if m.tied_embeddings else 1
        self.tokens_Vxd = weight(m, k_tokens, (vocab_size, m.d_model), (None, "embed"), fan_in)
        if m.positions == "learned":
            shape = config.data.sequence_length, m.d_model
            self.positions_Sxd = weight(m, k_positions, shape, (None, "embed"), fan_in)
        # Every parameter of `blocks` has a leading axis of L.
        self.blocks = nnx.vmap(lambda k: Block(config, layout, k))(jax.random.split(k_blocks, m.n_layers))
        if m.final_norm:
            self.norm = Norm(m)
        if not m.tied_embeddings:
            self.head_dxV = weight(m, k_head, (m.d_model, vocab_size), ("embed", None), m.d_model, readout=True)

    def __call__(self, tokens_BxS: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(hidden_BxSxd before the unembedding, statistics of the MoE layers, each with a leading axis of L; {} for a
        dense model)."""
        m, layout = self.config.model, self.layout
        dtype = jnp.dtype(m.compute_dtype)
        x_BxSxd = layout.gathered(self.tokens_Vxd[...].astype(dtype))[tokens_BxS]
        if m.positions == "learned":
            x_BxSxd = x_BxSxd + layout.gathered(self.positions_Sxd[...].astype(dtype))[None, : tokens_BxS.shape[1]]
        x_BxSxd = layout.constrain(x_BxSxd, "batch", None, None)
        document_BxS = document_numbers(tokens_BxS, self.end_of_document) if self.config.data.mask_documents else None
        graph, layers = nnx.split(self.blocks)

        def block(x_BxSxd, layer):
            x_BxSxd, statistics = nnx.merge(graph, layer)(x_BxSxd, document_BxS)
            return layout.constrain(x_BxSxd, "batch", None, None), statistics

        scanned = rematerialised(block, m.remat)
        x_BxSxd, statistics = jax.lax.scan(scanned, x_BxSxd, layers, unroll=unrolled(self.config, layout))
        if m.final_norm:
            x_BxSxd = self.norm(x_BxSxd)
        return x_BxSxd, statistics

    def logits(self, x_BxSxd: jax.Array) -> jax.Array:
        """logits_BxSxV, in at least float32."""
        return unembed(x_BxSxd, self.layout.gathered(self._head(x_BxSxd)))

    def _head(self, x_BxSxd: jax.Array) -> jax.Array:
        head_dxV = self.tokens_Vxd[...].T if self.config.model.tied_embeddings else self.head_dxV[...]
        return head_dxV.astype(x_BxSxd.dtype)

    def losses(self, windows_BxS1: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(loss_BxS in nats of each next token of windows_Bx(S+1), statistics)."""
        x_BxSxd, statistics = self(windows_BxS1[:, :-1])
        return self._by_device(token_losses, P(AXES))(x_BxSxd, windows_BxS1[:, 1:], self._head(x_BxSxd)), statistics

    def scores(self, windows_BxS1: jax.Array) -> tuple[jax.Array, jax.Array]:
        """(loss_BxS as `losses` gives it, likeliest_BxS: whether each next token is the most likely one)."""
        x_BxSxd, _ = self(windows_BxS1[:, :-1])
        return self._by_device(token_scores, P(AXES))(x_BxSxd, windows_BxS1[:, 1:], self._head(x_BxSxd))

    def loss(self, windows_BxS1: jax.Array) -> tuple[jax.Array, dict[str, jax.Array]]:
        """(mean of `losses`, statistics); its gradient takes less time and memory than that of the mean."""
        x_BxSxd, statistics = self(windows_BxS1[:, :-1])

        def summed(*given):
            return jax.lax.psum(summed_loss(*given), AXES)

        loss = self._by_device(summed, P())(x_BxSxd, windows_BxS1[:, 1:], self._head(x_BxSxd))
        return loss / windows_BxS1[:, 1:].size, statistics

    def _by_device(self, losses: Callable[..., jax.Array], out_specs: P) -> Callable[..., jax.Array]:
        """A function of model/cross_entropy.py, on each device's share of (x_BxSxd, target_BxS) and the whole head.

        The head's gradient is summed over the devices once, after the last chunk: left to GSPMD, every chunk sent
        it."""

        trivial = self.layout.trivial_axes

        def local(x_BxSxd, target_BxS, head_dxV):
            head_dxV = jax.lax.pcast(head_dxV, tuple(a for a in AXES if a not in trivial), to="varying")
            head_dxV = head_dxV.astype(accumulation_dtype(x_BxSxd.dtype))
            return losses(self.config.model.logits_positions, x_BxSxd, target_BxS, head_dxV)

        return jax.shard_map(
            local,
            mesh=self.layout.mesh,
            in_specs=(P(AXES), P(AXES), P(trivial)),
            out_specs=out_specs,
            check_vma=self.layout.check_vma,
        )


def unrolled(config: Config, layout: Layout) -> bool:
    """Whether the program has each layer by itself, not one that is scanned.

    What is recomputed stays scanned: XLA would merge it with what it repeats."""
    m = config.model
    few, wide = m.n_layers <= UNROLLED_LAYERS, m.d_model >= UNROLLED_D_MODEL
    return layout.one_cpu and few and wide and m.remat == "none"


def document_numbers(tokens_BxS: jax.Array, end_of_document: int) -> jax.Array:
    """document_BxS: how many documents ended before each position. An end belongs to the document that it ends.

    Positions go on across documents and every token stays a target, so that counts and losses mean the same."""
    end_BxS = (tokens_BxS == end_of_document).astype(jnp.int32)
    return jnp.cumsum(end_BxS, axis=1) - end_BxS
