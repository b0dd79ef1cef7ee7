"""Refuses a model that the devices of a mesh cannot hold, before anything is allocated."""

import os

from jax.sharding import Mesh

from moe_jax.config import counts
from moe_jax.config.schema import Config
from moe_jax.errors import UserError
from moe_jax.text import count, number, short

_BYTES = 8  # of a parameter, at least: itself and its gradient in float32; moments and activations come on top


def refuse_too_large(config: Config, vocab_size: int, mesh: Mesh) -> None:
    """Raises UserError where parameters and gradients alone are larger than the memory of all devices of the mesh."""
    n_total = counts.count_parameters(config, vocab_size).n_total
    available = memory_bytes(mesh)
    if available is not None and _BYTES * n_total > available:
        raise UserError(
            f"config.model: {short(n_total)} parameters and their gradients take {_gib(_BYTES * n_total)}, and the"
            f" {count(mesh.size, 'device')} of the mesh ({mesh.devices.flat[0].platform}) have {_gib(available)}:"
            " make the model smaller, or give it more devices"
        )


def memory_bytes(mesh: Mesh) -> float | None:
    """Memory of the mesh's devices, in bytes; that of its hosts on CPUs; None where it is not known."""
    devices = list(mesh.devices.flat)
    if devices[0].platform == "cpu":
        hosts = len({device.process_index for device in devices})
        return float(hosts * os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES"))
    local = next((device for device in devices if device in mesh.local_devices), None)
    limit = number((local.memory_stats() or {}).get("bytes_limit")) if local is not None else None
    return None if limit is None else float(limit * len(devices))


def _gib(size: float) -> str:
    return f"{size / 2**30:,.0f} GiB"
