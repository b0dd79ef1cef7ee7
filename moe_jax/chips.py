"""Published facts of accelerators, for MFU, memory and rooflines.

TPU values are from Google Cloud's page of each version (docs.cloud.google.com/tpu/docs/{v4,v5e,v5p,v6e,tpu7x}) and per
chip unless a comment says otherwise; (derived) values are computed from the page's. Units are decimal: 1 GB/s is 1e9
bytes/s. NVIDIA's values are from the H100 SXM and H200 data sheets (without sparsity).
"""

import dataclasses

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """One TPU chip. Its `devices`, as JAX counts them, share the values given for the chip."""

    name: str  # as in the name of a topology
    devices: int  # of JAX, per chip
    dimensions: int  # of the shape of a slice
    peak_flops: float  # bf16 FLOP/s
    hbm_bytes: int
    hbm_bandwidth: float  # bytes/s
    ici_bandwidth: float  # bytes/s between chips of a slice, both directions of all links together
    dcn_bandwidth: float | None  # bytes/s between slices; None: not published
    available_bytes: int  # HBM of one device that a program may use, by the compiler of libtpu 0.0.52


CHIPS = {
    chip.name: chip
    for chip in (
        # ICI (derived): twice the pod's all-reduce rate of 1.1 PB/s over its 4,096 chips, the ratio of v5e's values.
        Chip("v4", 1, 3, 275e12, 32 * GIB, 1200e9, 537e9, None, int(30.75 * GIB)),
        # DCN (derived): 6.4 Tbit/s per pod of 256 chips.
        Chip("v5e", 1, 2, 197e12, 16 * GIB, 819e9, 400e9, 3.125e9, int(15.75 * GIB)),
        Chip("v5p", 1, 3, 459e12, 95 * GIB, 2765e9, 1200e9, 50e9 / 8, int(95.73 * GIB)),
        Chip("v6e", 1, 2, 918e12, 32 * GIB, 1638e9, 800e9, 100e9 / 8, int(31.24 * GIB)),
        Chip("tpu7x", 2, 3, 2307e12, 192 * GIB, 7380e9, 1200e9, 100e9 / 8, int(94.74 * GIB)),
    )
}

# JAX's `device_kind` of a TPU -> the chip.
_KINDS = {
    "TPU v4": "v4",
    "TPU v5 lite": "v5e",
    "TPU v5e": "v5e",
    "TPU v5": "v5p",
    "TPU v5p": "v5p",
    "TPU v6 lite": "v6e",
    "TPU v6e": "v6e",
    "TPU7x": "tpu7x",
}

_GPUS = {"NVIDIA H100 80GB HBM3": 989e12, "NVIDIA H200": 989e12}


def peak_flops(device_kind: str) -> float | None:
    """bf16 FLOP/s of one JAX device of this kind; None for a kind that is not listed (a CPU)."""
    if device_kind in _KINDS:
        chip = CHIPS[_KINDS[device_kind]]
        return chip.peak_flops / chip.devices
    return _GPUS.get(device_kind)
