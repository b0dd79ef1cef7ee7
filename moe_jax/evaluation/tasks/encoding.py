"""A request as token ids, by the rule of lm-evaluation-harness (`TemplateLM._encode_pair`), so that scores compare.

1. Spaces at the end of the context go to the front of the continuation.
2. The continuation's tokens are those of context + continuation from the number of the context's tokens on: a token
   that would span both begins where the context alone ends.
3. Nothing is put in front of a context. Where it is empty, the token that ends a document is the context: in training
   a text follows it.
4. What is longer than the model's positions loses tokens of the context, from the left.
"""

import functools
from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from moe_jax.data.vocabularies import TextVocabulary
from moe_jax.errors import UserError
from moe_jax.text import count


class Encoded(NamedTuple):
    """A request's token ids."""

    tokens: np.ndarray  # int32, at most positions + 1
    answer: int  # how many of them, at the end, are the continuation's
    cut: bool  # whether the context lost its beginning


class Encoder:
    """Turns requests into token ids of one vocabulary, for a model of so many `positions`."""

    def __init__(self, vocabulary: TextVocabulary, end_of_document: int, positions: int):
        self._vocabulary, self._end_of_document, self._positions = vocabulary, end_of_document, positions
        self._context = functools.lru_cache(maxsize=4)(self._ids)  # the choices of a document share their context

    def _ids(self, text: str) -> np.ndarray:
        return self._vocabulary.encode(text).astype(np.int32)

    def pair(self, context: str, continuation: str) -> tuple[np.ndarray, np.ndarray]:
        """(the context's ids, the continuation's), before anything is cut."""
        text = context.rstrip()
        context_ids = self._context(text)
        answer_ids = self._ids(context + continuation)[len(context_ids) :]
        if len(context_ids):
            return context_ids, answer_ids
        if len(answer_ids) and answer_ids[0] == self._end_of_document:
            return answer_ids[:1], answer_ids[1:]
        return np.array([self._end_of_document], np.int32), answer_ids

    def encode(self, pairs: Iterable[tuple[str, str]], name: str) -> list[Encoded]:
        """Requests of the task `name`. Raises UserError as `fit`."""
        return self.fit((self.pair(*pair) for pair in pairs), name)

    def fit(self, pairs: Iterable[tuple[np.ndarray, np.ndarray]], name: str) -> list[Encoded]:
        """Requests that are token ids already, (context, continuation), each cut to the last positions + 1 tokens: the
        last token is a target only. Raises UserError where a continuation has no tokens or more than positions."""
        lengths, encoded = [], []
        for context_ids, answer_ids in pairs:
            lengths.append(len(answer_ids))
            tokens = np.concatenate([context_ids, answer_ids]).astype(np.int32)[-self._positions - 1 :]
            cut = len(tokens) < len(context_ids) + len(answer_ids)
            encoded.append(Encoded(tokens, len(answer_ids), cut))
        if too_long := sum(n > self._positions for n in lengths):
            raise UserError(
                f"{name}: the continuations of {count(too_long, 'request')} of {len(lengths):,} have up to "
                f"{max(lengths):,} tokens, which do not fit the model's {self._positions:,} positions "
                "(data.sequence_length); choose another task, or a run with more positions"
            )
        if empty := lengths.count(0):
            raise UserError(
                f"{name}: the continuations of {count(empty, 'request')} have no token of their own, as the vocabulary "
                "joins them with the last of the context; choose another variant"
            )
        return encoded
