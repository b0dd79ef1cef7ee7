"""Log-likelihoods of continuations, batch by batch, each cut over the mesh.

B  sequences of a batch (rows)    S  positions of a window
"""

import functools
from collections.abc import Iterator, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from moe_jax.evaluation.loading import Restored
from moe_jax.evaluation.tasks import batching
from moe_jax.evaluation.tasks.batching import Batch
from moe_jax.evaluation.tasks.encoding import Encoded
from moe_jax.training.put import put_windows

BATCH_TOKENS = 8192  # of one device


class Scores(NamedTuple):
    """Of some requests: the sum of the log-probabilities of each continuation's tokens, in nats, and whether each of
    them was the most likely one."""

    log_likelihood: np.ndarray  # float64
    greedy: np.ndarray  # bool


class Scorer:
    """Scores requests under one model; `batch_tokens` changes how fast, and no score by more than rounding."""

    def __init__(self, scored: Restored, batch_tokens: int = BATCH_TOKENS):
        self._trainer, self._weights, self._batch_tokens = scored.trainer, scored.state.weights, batch_tokens
        self._layout = scored.trainer.layout
        self._sharding = scored.trainer.evaluate_sharding
        self._score = jax.jit(
            self._sums,
            in_shardings=(scored.trainer.shardings.weights, self._sharding, self._sharding),
            out_shardings=NamedSharding(self._layout.mesh, P()),
        )

    @property
    def positions(self) -> int:
        """How many tokens the model sees at most."""
        return self._trainer.config.data.sequence_length

    def plan(self, encoded: Sequence[Encoded]) -> list[Batch]:
        """The batches of these requests."""
        lengths = [len(request.tokens) - 1 for request in encoded]
        return batching.plan(lengths, self.positions, self._batch_tokens, self._layout.batch_parts)

    def score(self, encoded: Sequence[Encoded], batches: Sequence[Batch]) -> Iterator[tuple[Batch, Scores]]:
        """Yields each batch with its requests' scores. A batch is read after the next one is launched, so the device
        does not wait for the host."""
        pending: tuple[Batch, jax.Array] | None = None
        for batch in batches:
            launched = batch, self._launch([encoded[i] for i in batch.requests], batch)
            if pending is not None:
                yield _read(*pending)
            pending = launched
        if pending is not None:
            yield _read(*pending)

    def score_all(self, encoded: Sequence[Encoded]) -> Scores:
        """The scores of all requests, in their order."""
        all_scores = Scores(np.zeros(len(encoded)), np.zeros(len(encoded), bool))
        for batch, scores in self.score(encoded, self.plan(encoded)):
            for of_all, of_batch in zip(all_scores, scores, strict=True):
                of_all[list(batch.requests)] = of_batch
        return all_scores

    def _launch(self, requests: Sequence[Encoded], batch: Batch) -> jax.Array:
        windows_BxS1 = np.zeros((batch.rows, batch.length + 1), np.int32)
        span_Bx2 = np.zeros((batch.rows, 2), np.int32)  # the targets that are the continuation's: from, to
        for row, request in enumerate(requests):
            n = len(request.tokens)
            windows_BxS1[row, :n] = request.tokens
            span_Bx2[row] = n - 1 - request.answer, n - 1
        put = functools.partial(put_windows, sharding=self._sharding)
        windows = put(windows_BxS1.__getitem__, windows_BxS1.shape)
        return self._score(self._weights, windows, put(span_Bx2.__getitem__, span_Bx2.shape))

    def _sums(self, weights, windows_BxS1: jax.Array, span_Bx2: jax.Array) -> jax.Array:
        """score_2xB: log-likelihoods, and 1 where every token was the most likely one. What follows a continuation
        changes nothing: the model is causal."""
        loss_BxS, likeliest_BxS = self._trainer.model(weights).scores(windows_BxS1)
        position_1xS = jnp.arange(loss_BxS.shape[1], dtype=jnp.int32)[None, :]
        asked_BxS = (position_1xS >= span_Bx2[:, :1]) & (position_1xS < span_Bx2[:, 1:])
        log_likelihood_B = -jnp.where(asked_BxS, loss_BxS, 0).sum(-1)
        greedy_B = (likeliest_BxS | ~asked_BxS).all(-1)
        return jnp.stack([log_likelihood_B, greedy_B.astype(log_likelihood_B.dtype)])


def _read(batch: Batch, score_2xB: jax.Array) -> tuple[Batch, Scores]:
    read_2xB = np.asarray(score_2xB, np.float64)[:, : len(batch.requests)]
    return batch, Scores(read_2xB[0], read_2xB[1] > 0)
