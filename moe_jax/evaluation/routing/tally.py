"""The choices of one layer, counted over batches. Integers, so the order of batches changes nothing.

T  tokens of a batch    E  experts    V  vocabulary
"""

import numpy as np


class Tally:
    """Counts of one layer. `group_tokens` are routed together; an expert has `capacity` slots for them in training
    (None: it drops nothing)."""

    def __init__(self, n_experts: int, vocab_size: int, group_tokens: int, capacity: int | None):
        self.vocab_size, self._group_tokens, self._capacity = vocab_size, group_tokens, capacity
        self.together_ExE = np.zeros((n_experts, n_experts), np.int64)  # tokens of both; of one on the diagonal
        self.tokens_V = np.zeros(vocab_size, np.int64)
        self.with_experts = np.zeros(n_experts + 1, np.int64)  # tokens by how many experts they have
        self.dropped = 0
        self._entropy, self._counts = 0.0, {}  # token · E + expert -> tokens

    def add(self, tokens_T: np.ndarray, chosen_TxE: np.ndarray, entropy_T: np.ndarray) -> None:
        """Counts a batch of whole routing groups."""
        T, E = chosen_TxE.shape
        chosen = chosen_TxE.astype(np.float32)  # exact to 2^24 tokens, and a product of floats is the fast one
        self.together_ExE += (chosen.T @ chosen).astype(np.int64)
        self.tokens_V += np.bincount(tokens_T, minlength=self.vocab_size)
        self.with_experts += np.bincount(chosen_TxE.sum(1), minlength=E + 1)
        if self._capacity is not None:
            load_RxE = chosen_TxE.reshape(T // self._group_tokens, self._group_tokens, E).sum(1)
            self.dropped += int(np.maximum(load_RxE - self._capacity, 0).sum())
        self._entropy += float(entropy_T.astype(np.float64).sum())
        token_n, expert_n = np.nonzero(chosen_TxE)
        key, n = np.unique(tokens_T[token_n].astype(np.int64) * E + expert_n, return_counts=True)
        for k, count in zip(key.tolist(), n.tolist(), strict=True):
            self._counts[k] = self._counts.get(k, 0) + count

    @property
    def tokens(self) -> int:
        return int(self.tokens_V.sum())

    @property
    def loads(self) -> np.ndarray:
        """Tokens of each expert."""
        return self.together_ExE.diagonal()

    @property
    def entropy(self) -> float:
        """Of the router's distribution, nats, mean over tokens."""
        return max(0.0, self._entropy / self.tokens)

    @property
    def dropped_fraction(self) -> float | None:
        """The share of assignments that find no slot in training; None where it drops nothing."""
        return None if self._capacity is None else self.dropped / max(1, int(self.loads.sum()))

    def expert_tokens(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(expert, token, how often it has the token), a row for each pair that occurs."""
        E = len(self.together_ExE)
        key, n = (np.array([*part], np.int64) for part in (self._counts.keys(), self._counts.values()))
        return key % E, key // E, n
