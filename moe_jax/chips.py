"""Published peaks of accelerators, for MFU; None where we know none (a CPU).

bf16 FLOP/s of one JAX device. Sources: Google Cloud's pages of the TPU versions (v4 275, v5e 197, v5p 459, v6e 918
and TPU7x
2307 TFLOP/s a chip; a TPU7x chip is two JAX devices), NVIDIA's H100 SXM and H200 data sheets (989 dense).
"""

_PEAKS = {
    "TPU v4": 275e12,
    "TPU v5 lite": 197e12,
    "TPU v5e": 197e12,
    "TPU v5": 459e12,
    "TPU v5p": 459e12,
    "TPU v6 lite": 918e12,
    "TPU v6e": 918e12,
    "TPU7x": 2307e12 / 2,
    "NVIDIA H100 80GB HBM3": 989e12,
    "NVIDIA H200": 989e12,
}


def peak_flops(device_kind: str) -> float | None:
    """bf16 FLOP/s of one device of this kind."""
    return _PEAKS.get(device_kind)
