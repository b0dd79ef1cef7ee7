"""What a slice of TPU chips is, by the clouds' names for it: which chips, how many, and on how many hosts."""

import dataclasses
import math
import re

# Names end with the number of chips, of these with that of their cores, two a chip.
_CORES = ("v2", "v3", "v4", "v5p", "tpu7", "tpu7x")
_CHIPS_A_HOST = 4  # or fewer, where the slice has fewer (xpk 1.16, system_characteristics.py)
_ON_ONE_HOST = {"v5litepod": 8, "v6e": 8}  # of TPU VMs (cloud.google.com/tpu/docs/v5e and v6e); not through xpk
_CHIPS = {"v5litepod": "v5e"}  # where a topology calls a chip (chips.py) otherwise than the clouds do


@dataclasses.dataclass(frozen=True)
class Slices:
    """What one job gets."""

    chip: str  # as in a topology's name
    chips: int  # of each slice
    slices: int
    hosts: int  # of all of them; each runs one process


def on_gke(tpu_type: str, num_slices: int) -> Slices | None:
    """Of a workload on `--tpu_type` (v5litepod-16, v6e-4x4); None where the name does not say."""
    named = _named(tpu_type)
    if named is None:
        return None
    return Slices(_chip(tpu_type), named, num_slices, num_slices * math.ceil(named / _CHIPS_A_HOST))


def of_tpu_vm(accelerator_type: str) -> Slices | None:
    """Of a queued resource; None where the name does not say."""
    chips = _named(accelerator_type)
    if chips is None:
        return None
    one = chips <= _ON_ONE_HOST.get(accelerator_type.rpartition("-")[0], 0)
    return Slices(_chip(accelerator_type), chips, 1, 1 if one else math.ceil(chips / _CHIPS_A_HOST))


def _chip(name: str) -> str:
    kind = name.rpartition("-")[0]
    return _CHIPS.get(kind, kind)


def _named(name: str) -> int | None:
    """The chips of a slice of this name."""
    found = re.fullmatch(r"([a-z0-9]+)-(\d+(?:x\d+)*)", name)
    if found is None:
        return None
    sizes = [int(size) for size in found[2].split("x")]
    return math.ceil(sizes[0] / 2) if len(sizes) == 1 and found[1] in _CORES else math.prod(sizes)
