"""Rematerialisation: what the backward pass recomputes, by the values of `model.remat`.

none      nothing
block     the block, from its input: the least memory
dispatch  the block, except what is small or costly to recompute: the routing, and what came from other devices
          (k · capacity factor rows a token, or the sequences that were exchanged)
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

_SAVED = "dispatch"


def saved(arrays: Any) -> Any:
    """The arrays, marked to be saved for the backward pass under `dispatch`."""
    return jax.tree.map(lambda a: checkpoint_name(a, _SAVED), arrays)


def rematerialised(block: Callable, remat: str) -> Callable:
    """`block`, the body of a scan, rematerialised as `remat` (none, block, dispatch) says."""
    if remat == "none":
        return block
    policy = jax.checkpoint_policies.save_only_these_names(_SAVED) if remat == "dispatch" else None
    return jax.checkpoint(block, policy=policy, prevent_cse=False)  # a scan's two passes cannot be merged anyway
