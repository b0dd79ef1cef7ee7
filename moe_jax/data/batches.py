"""The tokens of each step: a function of (seed, step) and of nothing else, on any number of hosts.

So the state of the data is the step: resuming needs no replay, and each host reads its own rows only.

    L        data.sequence_length
    R        rows asked of a batch
    window   L + 1 consecutive tokens of a split; the first L are inputs, the last L are targets
    packed   windows side by side: window i starts at token i·L, so no token is a target twice in an epoch
    random   windows that start anywhere, each start at most once an epoch
"""

import functools
from typing import Literal

import numpy as np

from moe_jax.data.permutation import permute
from moe_jax.data.store import Store
from moe_jax.errors import UserError

# The seed of the order in which held-out windows are drawn: the same for every run, whatever its own seed.
HELD_OUT_SEED = 0
# Small batches are read several steps at once, up to this many windows: a read of few windows is mostly overhead.
WINDOWS_AT_ONCE = 256

Rows = slice | np.ndarray


class Batches:
    """Training batches: the windows of the train split, in a new order each epoch.

    Raises UserError if the split does not hold one window."""

    def __init__(
        self, store: Store, sequence_length: int, batch_sequences: int, seed: int, repeat: bool = False,
        windows: Literal["packed", "random"] = "packed",
    ):  # fmt: skip
        self.store = store
        self.sequence_length = sequence_length
        self.batch_sequences = batch_sequences
        self.seed = seed
        self.repeat = repeat
        self.n_windows = _n_windows(store, "train", sequence_length)
        if windows == "packed":
            self._n_starts, self._stride = self.n_windows, sequence_length
        else:
            self._n_starts, self._stride = store.info.tokens["train"] - sequence_length, 1
        self._ahead: dict[tuple[int, bytes], np.ndarray] = {}  # batches that were read with the last one

    @property
    def tokens_available(self) -> int:
        """Targets in one epoch of packed windows: what can be trained on without repetition."""
        return self.n_windows * self.sequence_length

    def check(self, tokens_asked: int) -> None:
        """Raises UserError if this many tokens need a second epoch and `repeat` does not allow it."""
        if tokens_asked > self.tokens_available and not self.repeat:
            raise UserError(
                f"train.tokens={tokens_asked} is more than the {self.tokens_available} tokens that {self.store.path} "
                f"holds for data.sequence_length={self.sequence_length}; ask for fewer, prepare a larger store, or "
                "allow repetition with data.repeat=True"
            )

    def batch(self, step: int, rows: Rows = slice(None)) -> np.ndarray:
        """The given rows of the step's batch (all by default): windows, int32 [R, L + 1].

        Raises UserError if the store is damaged."""
        row_R = np.arange(self.batch_sequences, dtype=np.int64)[rows]
        rows_key = row_R.tobytes()
        if (step, rows_key) not in self._ahead:
            n = max(1, WINDOWS_AT_ONCE // max(1, len(row_R)))
            steps = np.arange(step, step + n)
            read = self._windows((steps[:, None] * self.batch_sequences + row_R[None, :]).reshape(-1))
            self._ahead = {(s, rows_key): r for s, r in zip(steps.tolist(), np.split(read, n), strict=True)}
        return self._ahead.pop((step, rows_key))

    def _windows(self, numbers: np.ndarray) -> np.ndarray:
        """Windows by their numbers, which count on from epoch to epoch: int32 [n, L + 1]."""
        epochs, places = np.divmod(numbers, self._n_starts)
        for epoch in np.unique(epochs).tolist():
            places[epochs == epoch] = permute(places[epochs == epoch], self._n_starts, self.seed, epoch)
        return self.store.windows("train", places * self._stride, self.sequence_length + 1)


class HeldOut:
    """The evaluation set: `sequences` packed windows, drawn evenly over the held-out split.

    They are the first of a fixed order, a keyed permutation: every run on a store has the same, and fewer of them are
    a part of more. Raises UserError if the split holds fewer."""

    def __init__(self, store: Store, sequence_length: int, sequences: int):
        held = _n_windows(store, "heldout", sequence_length)
        if sequences > held:
            raise UserError(
                f"eval.sequences={sequences} is more than the {held} windows of data.sequence_length={sequence_length} "
                f"in the held-out part of {store.path} ({store.info.tokens['heldout']} tokens); ask for fewer, or "
                "prepare a larger store"
            )
        self.store = store
        self.sequence_length = sequence_length
        self.sequences = sequences
        self._held = held
        self.tokens = sequences * sequence_length  # targets

    def batch(self, rows: Rows = slice(None)) -> np.ndarray:
        """The given windows (all by default): int32 [R, L + 1]. Raises UserError if the store is damaged."""
        return self.store.windows("heldout", self._starts(rows), self.sequence_length + 1)

    def _starts(self, rows: Rows = slice(None)) -> np.ndarray:
        """The first token of each window, int64 [R]."""
        drawn = np.arange(self.sequences, dtype=np.int64)[rows]
        return permute(drawn, self._held, HELD_OUT_SEED, epoch=0) * self.sequence_length

    @functools.cached_property
    def bytes(self) -> int:
        """Bytes of source text, in UTF-8, that the targets of all windows stand for. Raises UserError for none."""
        n_bytes = self.store.held_out_bytes(self._starts() + 1, self.sequence_length)  # without each first token
        if not n_bytes:
            raise UserError(f"the held-out windows of {self.store.path} hold no text, so there are no bits per byte")
        return n_bytes


def _n_windows(store: Store, split: str, sequence_length: int) -> int:
    n = (store.info.tokens[split] - 1) // sequence_length
    if n < 1:
        raise UserError(
            f"data.sequence_length={sequence_length} does not fit once into the {store.info.tokens[split]} {split} "
            f"tokens of {store.path}"
        )
    return n
