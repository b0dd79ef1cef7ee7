"""Tokens as text while they come: a character whose last byte is still to come waits for it."""

from collections.abc import Sequence

from moe_jax.data.vocabularies import TextVocabulary

_INCOMPLETE = "\ufffd"  # what bytes that are no UTF-8, or not yet, decode to


class TextStream:
    """The text of tokens that follow a prompt, piece by piece; the pieces together are all of it."""

    def __init__(self, vocabulary: TextVocabulary, prompt: Sequence[int]):
        self._vocabulary, self._tokens = vocabulary, list(prompt)
        self._shown = len(self._text())

    def add(self, token: int) -> str:
        """The text that is certain once this token is there."""
        self._tokens.append(token)
        text = self._text()
        return self._piece(text[: len(text.rstrip(_INCOMPLETE))])

    def rest(self) -> str:
        """What waited for a token that did not come."""
        return self._piece(self._text())

    def _piece(self, text: str) -> str:
        piece = text[self._shown :]
        self._shown = max(self._shown, len(text))
        return piece

    def _text(self) -> str:
        return self._vocabulary.decode(self._tokens)
