"""The chips and hosts of a TPU slice, from its name in Google Cloud: v5litepod-16, v6e-4x4."""

import dataclasses
import math
import re

# Names end with the number of chips; names of these chips end with the number of cores, two a chip.
_CORES = ("v2", "v3", "v4", "v5p", "tpu7", "tpu7x")
_CHIPS_A_HOST = 4  # at most (xpk 1.16, system_characteristics.py)
# Largest slices that are one host, on TPU VMs (cloud.google.com/tpu/docs/v5e and v6e); not through xpk.
_ON_ONE_HOST = {"v5litepod": 8, "v6e": 8}
_CHIPS = {"v5litepod": "v5e"}  # Google Cloud's name -> the name in chips.py, where they differ


@dataclasses.dataclass(frozen=True)
class Slices:
    """The TPU slices of one job."""

    chip: str  # a key of chips.CHIPS
    chips: int  # of each slice
    slices: int
    hosts: int  # of all slices; each runs one process


def on_gke(tpu_type: str, num_slices: int) -> Slices | None:
    """The slices of a GKE workload of this type (v5litepod-16, v6e-4x4); None where the name is not understood."""
    chips = _n_chips(tpu_type)
    if chips is None:
        return None
    return Slices(_chip(tpu_type), chips, num_slices, num_slices * math.ceil(chips / _CHIPS_A_HOST))


def of_tpu_vm(accelerator_type: str) -> Slices | None:
    """The slice of a queued resource of this type; None where the name is not understood."""
    chips = _n_chips(accelerator_type)
    if chips is None:
        return None
    one = chips <= _ON_ONE_HOST.get(accelerator_type.rpartition("-")[0], 0)
    return Slices(_chip(accelerator_type), chips, 1, 1 if one else math.ceil(chips / _CHIPS_A_HOST))


def _chip(name: str) -> str:
    kind = name.rpartition("-")[0]
    return _CHIPS.get(kind, kind)


def _n_chips(name: str) -> int | None:
    """The number of chips of a slice of this name; None where the name is not understood."""
    found = re.fullmatch(r"([a-z0-9]+)-(\d+(?:x\d+)*)", name)
    if found is None:
        return None
    sizes = [int(size) for size in found[2].split("x")]
    return math.ceil(sizes[0] / 2) if len(sizes) == 1 and found[1] in _CORES else math.prod(sizes)
