"""What the attention kernel of a compiled program multiplies and reads: unlike megablox's, it states no costs itself.

A kernel of JAX's splash attention goes over pairs of a block of queries and a block of keys, but for those that the
causal mask leaves empty. It holds a block of one side while it goes over the other side's blocks, which it reads again
for each. All follows from its name, the block sizes that it states, and the shapes of its operands.

B  sequences    H  heads    S  positions    Dh  width of a head
"""

import dataclasses
import math
import re
from collections.abc import Sequence

# By the kernel's pass: its products for a pair of blocks, the names of its block sizes, and the side that it reads
# again.
_PASSES = {
    "fwd": (2, "block_q", "block_kv", "k"),
    "dq": (3, "block_q_dq", "block_kv_dq", "k"),
    "dkv": (4, "block_q_dkv", "block_kv_dkv", "q"),
}
_UNFUSED_RESULTS = 4  # of dkv, scratch included; where it computes the gradient of queries too, it has more


@dataclasses.dataclass(frozen=True)
class Kernel:
    """One call of a kernel on one device."""

    flops: float  # a multiply-add is 2
    reads: tuple[float, ...]  # how often it reads each operand


def attention_kernel(
    op_name: str, stated: str, masks: int, operands: Sequence[Sequence[int]], results: int
) -> Kernel | None:
    """The kernel of a custom call; None where it is none of splash attention's.

    From its op_name, the text that states its block sizes, how many of its operands are the mask's blocks, which come
    first, the shapes of all, and the number of its results. A batch of one sequence has no axis B."""
    found = re.search(r"/splash_mha_(fwd|dq|dkv)(_segmented)?_", op_name)
    if found is None:
        return None
    products, q_name, k_name, read_again = _PASSES[found[1]]
    if found[1] == "dkv" and results > _UNFUSED_RESULTS:
        products += 1
    block = {side: int(re.search(rf'"{name}\W*(\d+)', stated)[1]) for side, name in (("q", q_name), ("k", k_name))}
    *batch, H, S, Dh = operands[masks]
    B = math.prod(batch)
    pairs = sum(-(-(begin + block["q"]) // block["k"]) for begin in range(0, S, block["q"]))
    # Queries, keys and values; documents; then what belongs to queries alone.
    sides = ("q k k q k" if found[2] else "q k k").split()
    sides += ["q"] * (len(operands) - masks - len(sides))

    def reads(shape: Sequence[int], side: str) -> float:
        # Documents are those of all heads, positions of all sequences too; several heads may share keys and values.
        sharing = B * H / {3: math.prod(shape[:-2]), 2: B, 1: 1}[len(shape) - len(batch)]
        if side == read_again:
            return sharing * pairs * block[side] / S
        return 1 if read_again == "q" else sharing  # dkv: all heads go over a block of keys before the next block

    return Kernel(
        flops=2.0 * products * Dh * block["q"] * block["k"] * pairs * B * H,
        reads=(1.0,) * masks + tuple(map(reads, operands[masks:], sides)),
    )
