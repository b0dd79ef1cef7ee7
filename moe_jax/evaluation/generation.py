"""Text from a finished run: tokens drawn one after the other, each from the model's distribution after all before it.

Every token recomputes the whole window, at one fixed length, so that one program serves all; what stands to its right
changes nothing in a causal model that drops no token.

B  sequences of a pass, all the same: as many as the mesh needs    V  vocabulary
S  positions of the model
"""

import dataclasses
from collections.abc import Iterator, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from moe_jax.errors import UserError
from moe_jax.evaluation.loading import Restored
from moe_jax.training.put import put_windows


@dataclasses.dataclass(frozen=True)
class Sampling:
    """How tokens are drawn. temperature 0: the most likely one, always. Raises UserError for an impossible value."""

    tokens: int  # at most
    temperature: float  # divides the logits
    top_p: float  # the share of the probability that the tokens drawn from hold together
    seed: int

    def __post_init__(self):
        if self.tokens < 1:
            raise UserError(f"--tokens={self.tokens}: must be above 0")
        if not 0 <= self.temperature < float("inf"):
            raise UserError(f"--temperature={self.temperature:g}: must be a number of at least 0 (0: the most likely)")
        if not 0 < self.top_p <= 1:
            raise UserError(f"--top_p={self.top_p:g}: must be above 0 and at most 1 (1: draw from all tokens)")
        if self.seed < 0:
            raise UserError(f"--seed={self.seed}: must be at least 0")


class Generator:
    """The next tokens of a restored run, whose vocabulary has `vocab_size` ids: the model may have more, for none of
    which there is text. Raises UserError for an expert-choice model."""

    def __init__(self, restored: Restored, vocab_size: int, end_of_document: int):
        trainer = restored.trainer
        moe, layout = trainer.config.moe, trainer.layout
        if moe is not None and moe.router == "expert_choice":
            raise UserError(
                "config.moe.router = expert_choice: such a model generates no text, since an expert's choice of tokens "
                "compares all sequences of its group; train with token_choice to generate"
            )
        self.vocab_size, self.end_of_document = vocab_size, end_of_document
        self.positions = trainer.config.data.sequence_length
        self._weights, self._sharding = restored.state.weights, trainer.evaluate_sharding
        self._sequences = layout.batch_parts * (1 if moe is None else moe.group_sequences)

        def last_logits(weights, tokens_BxS, position):
            model = trainer.model(weights)
            x_BxSxd, _ = model(tokens_BxS)
            x_Bx1xd = jax.lax.dynamic_slice_in_dim(x_BxSxd, position, 1, axis=1)
            return model.logits(x_Bx1xd)[0, 0]

        whole = NamedSharding(layout.mesh, P())
        self._last_logits = jax.jit(
            last_logits,
            in_shardings=(trainer.shardings.weights, self._sharding, whole),
            out_shardings=whole,
        )

    def logits(self, tokens: Sequence[int]) -> np.ndarray:
        """logits_V of the token after the last of `tokens`, of which the model sees at most the last S; float64."""
        seen = np.asarray(tokens[-self.positions :], np.int32)
        row_S = np.full(self.positions, self.end_of_document, np.int32)
        row_S[: len(seen)] = seen
        shape = (self._sequences, self.positions)
        tokens_BxS = put_windows(lambda rows_R: np.tile(row_S, (len(rows_R), 1)), shape, self._sharding)
        logits_V = self._last_logits(self._weights, tokens_BxS, jnp.int32(len(seen) - 1))
        return np.asarray(logits_V, np.float64)[: self.vocab_size]

    def check_prompt(self, prompt: Sequence[int]) -> None:
        """Raises UserError for a prompt that is longer than the model's positions."""
        if len(prompt) > self.positions:
            raise UserError(
                f"--prompt: has {len(prompt):,} tokens, more than the {self.positions:,} positions of the model "
                "(data.sequence_length); shorten it"
            )

    def continuation(self, prompt: Sequence[int], sampling: Sampling, sample: int = 0) -> Iterator[int]:
        """The tokens after the prompt, the last of them end_of_document if the model ends the document. An empty
        prompt begins a document. Number `sample` of one seed is always the same."""
        self.check_prompt(prompt)
        tokens = list(prompt) or [self.end_of_document]
        rng = np.random.default_rng([sampling.seed, sample])
        for _ in range(sampling.tokens):
            token = choose(self.logits(tokens), sampling, rng)
            tokens.append(token)
            yield token
            if token == self.end_of_document:
                return


def choose(logits_V: np.ndarray, sampling: Sampling, rng: np.random.Generator) -> int:
    """A token drawn as `sampling` says; equally likely ones are ordered by their ids."""
    if sampling.temperature == 0:
        return int(logits_V.argmax())
    p_V = np.exp((logits_V - logits_V.max()) / sampling.temperature)
    token_n, p_n = nucleus(p_V / p_V.sum(), sampling.top_p)
    drawn = np.searchsorted(p_n.cumsum(), rng.random() * p_n.sum(), side="right")
    return int(token_n[min(drawn, len(token_n) - 1)])


def nucleus(p_V: np.ndarray, top_p: float) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, their probabilities): the fewest most likely tokens that together have the probability top_p, most
    likely first (Holtzman et al. 2020, "The Curious Case of Neural Text Degeneration", section 3.1)."""
    token_V = np.argsort(-p_V, kind="stable")
    held_V = p_V[token_V].cumsum()
    n = min(int(np.searchsorted(held_V, top_p * held_V[-1] * (1 - 1e-12))) + 1, len(p_V))
    return token_V[:n], p_V[token_V[:n]]
