"""How many bytes of a document's text each of its tokens stands for, whatever the tokenizer drops, changes or makes up.

Every byte belongs to exactly one token. A token has the bytes from where the one before it ends to where it ends: what
a tokenizer drops belongs to the token after it, and of several tokens that spell one character one has its bytes. What
is left at the end belongs to the token that ends the document. So the sum is the text's length in UTF-8.
"""

import numpy as np


def of_tokens(end_n: np.ndarray, n_bytes: int) -> np.ndarray:
    """The bytes of n tokens and of the end of the document, int64 [n + 1], in a text of `n_bytes` bytes.

    Token i ends before byte end_n[i] of the text; a token that ends before an earlier one has no bytes."""
    return np.diff(np.maximum.accumulate(np.asarray(end_n, np.int64)), prepend=0, append=n_bytes)


def byte_of_character(text: str) -> np.ndarray:
    """Where in the text's UTF-8 each character begins, and where the last one ends: int64 [characters + 1]."""
    utf8 = np.frombuffer(text.encode(), np.uint8)
    return np.append(np.flatnonzero(utf8 & 0xC0 != 0x80), len(utf8))
