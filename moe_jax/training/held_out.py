"""Loss on the held-out windows: fixed windows, fixed groups, so the same from the same parameters on every mesh."""

import math
from typing import Any

import jax
import numpy as np

from moe_jax.data.batches import HeldOut
from moe_jax.model.sharding import EXPERT
from moe_jax.sweep.evaluation_record import EvaluationRecord, Kind
from moe_jax.training.put import put_windows
from moe_jax.training.step import Trainer


def evaluate(trainer: Trainer, weights: dict[str, Any], windows: HeldOut, dispatch: str | None) -> dict[str, float]:
    """`eval_loss` in nats per token, `bits_per_byte`, and `eval_dropped_fraction`, the share of (token, expert)
    assignments without a slot, over all windows. `dispatch`: with which tokens reach their experts (None: a dense
    model's).

    The last batch is filled up with windows of zeros that are not counted: groups are whole, so they touch nothing. A
    batch's losses are read after the next batch is launched: the device never waits for the host."""
    B = sequences_at_once(trainer, dispatch)
    nats, dropped, pending = 0.0, 0.0, None

    def add(first: int, loss_B: jax.Array, share: jax.Array) -> None:
        nonlocal nats, dropped
        n, share = min(B, windows.sequences - first), float(share)
        nats += np.asarray(loss_B, np.float64)[:n].sum()
        dropped += B * share
        if n < B and share:  # the zeros have assignments too
            _, share_of_zeros = trainer.evaluate(dispatch, weights, _batch(trainer, windows, windows.sequences, B))
            dropped -= (B - n) * float(share_of_zeros)

    for first in range(0, windows.sequences, B):
        launched = trainer.evaluate(dispatch, weights, _batch(trainer, windows, first, B))
        if pending is not None:
            add(*pending)
        pending = first, *launched
    if pending is not None:
        add(*pending)
    return {
        "eval_loss": nats / windows.tokens,
        "bits_per_byte": nats / math.log(2) / windows.bytes,
        "eval_dropped_fraction": max(0.0, dropped / windows.sequences),
    }


def sequences_at_once(trainer: Trainer, dispatch: str | None) -> int:
    """Sequences of an evaluation's batch: a microbatch of training, for which memory suffices.

    Dropless has room for all tokens of the devices along `expert` on each of them, so there a batch is as much smaller,
    down to one routing group a device."""
    config = trainer.config
    microbatch = config.train.batch_sequences // config.train.microbatches
    if dispatch != "dropless":
        return microbatch
    least = trainer.layout.batch_parts * config.moe.group_sequences
    return -(-microbatch // trainer.layout.size(EXPERT) // least) * least


def _batch(trainer: Trainer, windows: HeldOut, first: int, B: int) -> jax.Array:
    """windows_Bx(S+1) from window `first` on, on the devices; zeros where there are no more."""
    shape = (B, windows.sequence_length + 1)

    def read(rows_R: np.ndarray) -> np.ndarray:
        asked_R = first + rows_R
        held = asked_R[asked_R < windows.sequences]
        read_RxS1 = np.zeros((len(asked_R), shape[1]), np.int32)
        if held.size:
            read_RxS1[: len(held)] = windows.batch(held)
        return read_RxS1

    return put_windows(read, shape, trainer.evaluate_sharding)


def store_record(
    trainer: Trainer, weights: dict[str, Any], windows: HeldOut, dispatch: str | None, *,
    run: str, of: str, step: int,
) -> EvaluationRecord:  # fmt: skip
    """The run's evaluation at `step` on the held-out windows of the store called `of`."""
    values = evaluate(trainer, weights, windows, dispatch)
    return EvaluationRecord(
        name=run,
        kind=Kind.STORE,
        of=of,
        step=step,
        tokens=step * trainer.config.batch_tokens,
        values={metric: values[metric] for metric in ("eval_loss", "bits_per_byte")},
        about={
            "store": windows.store.path,
            "sha256": windows.store.info.sha256,
            "sequences": windows.sequences,
            "dispatch": dispatch,
        },
    )
