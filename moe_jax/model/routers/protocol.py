"""The protocol of a router, built-in or your own: what it gets and what it gives back.

R  routing groups of this device    E  experts                         C  slots of an expert for one group
T  tokens of a group                K  experts that a token chooses

A router of your own is named in the config as `moe.router = "module:name"`; see `Router`.
"""

from typing import Protocol

import jax
from flax import struct

from moe_jax.config.moe import MoeConfig


@struct.dataclass
class Choice:
    """The experts that each token chose, and the weights of their outputs.

    Every `dispatch` takes it. `dropless` serves all of it; for `slots` and `dense` the slots of each expert are filled
    in the order of tokens, and what finds no slot is dropped (routers/slots.py)."""

    expert_RxTxK: jax.Array  # int32, in [0, E); a token's K experts differ
    weight_RxTxK: jax.Array  # of the dtype of the logits


@struct.dataclass
class Slots:
    """The token in each slot of each expert, and the weight of the expert's output for it.

    `slots` and `dense` take it, `dropless` does not. Where tokens chose, each assignment's slot is known too, so that
    both passes of dispatch and combine gather. Where experts choose, a token may be in any number of slots: None."""

    token_RxExC: jax.Array  # int32; T: the slot is empty
    weight_RxExC: jax.Array  # of the dtype of the logits; 0 in empty slots
    slot_RxTxK: jax.Array | None  # int32, e·C + c; E·C: dropped


@struct.dataclass
class Statistics:
    """What losses and metrics need from a router, group by group. `token_statistics` gives it for a Choice."""

    load_RxE: jax.Array  # int32: assignments that each expert was asked to take, dropped ones included
    dropped_R: jax.Array  # int32: assignments that found no slot
    balance_R: jax.Array  # load-balancing loss, 1 when balanced (times moe.load_balance_loss_weight)
    z_R: jax.Array  # z-loss: mean squared logsumexp of the logits (times moe.router_z_loss_weight)
    entropy_R: jax.Array  # entropy of the router's distribution, mean over tokens, nats; a metric


class Router(Protocol):
    """A pure function from the logits of routing groups to the assignment of tokens to experts.

    Groups are whole sequences (moe.group_sequences of them; for expert_choice, that number of sequences at one
    position). A group must not look at another: groups are cut over devices. For a causal model, a token's choice must
    not look at later tokens. The function runs under jit, inside shard_map; gradients flow through the weights and the
    statistics. With model.remat = "dispatch", what it passes through `saved` is kept for the backward pass.

    logits_RxTxE  x · router matrix, float32 (float64 in a float64 model)
    moe           the config's moe group: top_k = K, n_experts = E, softmax, …
    capacity      C, from moe.capacity_factor; a Choice may ignore it
    bias_E        with moe.bias_update_rate > 0, what to add for the choice, not for weights; else None"""

    def __call__(
        self, logits_RxTxE: jax.Array, moe: MoeConfig, capacity: int, bias_E: jax.Array | None
    ) -> tuple[Choice | Slots, Statistics]: ...
