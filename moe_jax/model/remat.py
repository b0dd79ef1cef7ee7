"""What of a block the backward pass computes again, by the names of `model.remat`.

none      nothing
block     the block, from its input: the least memory
dispatch  the block, except what is small or costly to get again: who goes where, and what came from other devices
          (k · capacity factor rows a token, or the sequences that were exchanged)
"""

from collections.abc import Callable
from typing import Any

import jax
from jax.ad_checkpoint import checkpoint_name

_KEPT = "dispatch"


def keep(arrays: Any) -> Any:
    """The arrays, marked as what `dispatch` keeps."""
    return jax.tree.map(lambda a: checkpoint_name(a, _KEPT), arrays)


def rematerialised(block: Callable, remat: str) -> Callable:
    """`block`, the body of a scan, under one of the names above."""
    if remat == "none":
        return block
    policy = jax.checkpoint_policies.save_only_these_names(_KEPT) if remat == "dispatch" else None
    return jax.checkpoint(block, policy=policy, prevent_cse=False)  # a scan's two passes cannot be merged anyway
