"""How many hosts a job has, by the clouds' names for a slice of TPU chips. Each host runs one process."""

import math
import re

# Names end with the number of chips, of these with that of their cores, two a chip.
_CORES = ("v2", "v3", "v4", "v5p", "tpu7", "tpu7x")
_CHIPS_A_HOST = 4  # or fewer, where the slice has fewer (xpk 1.16, system_characteristics.py)
_ON_ONE_HOST = {"v5litepod": 8, "v6e": 8}  # of TPU VMs (cloud.google.com/tpu/docs/v5e and v6e); not through xpk


def on_gke(tpu_type: str, num_slices: int) -> int | None:
    """Hosts of a workload on `--tpu_type` (v5litepod-16, v6e-4x4); None where the name does not say."""
    chips = _chips(tpu_type)
    return None if chips is None else num_slices * math.ceil(chips / _CHIPS_A_HOST)


def of_tpu_vm(accelerator_type: str) -> int | None:
    """Hosts of a queued resource's slice; None where the name does not say."""
    chips = _chips(accelerator_type)
    if chips is None:
        return None
    one = chips <= _ON_ONE_HOST.get(accelerator_type.rpartition("-")[0], 0)
    return 1 if one else math.ceil(chips / _CHIPS_A_HOST)


def _chips(name: str) -> int | None:
    found = re.fullmatch(r"([a-z0-9]+)-(\d+(?:x\d+)*)", name)
    if found is None:
        return None
    sizes = [int(size) for size in found[2].split("x")]
    return math.ceil(sizes[0] / 2) if len(sizes) == 1 and found[1] in _CORES else math.prod(sizes)
