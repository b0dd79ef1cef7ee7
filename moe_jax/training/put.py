"""Puts windows of tokens on the devices: each host reads the rows that its own devices hold."""

from collections.abc import Callable

import jax
import numpy as np
from jax.sharding import NamedSharding


def put_windows(read: Callable[[np.ndarray], np.ndarray], shape: tuple[int, ...], sharding: NamedSharding) -> jax.Array:
    """windows_…xBx(S+1) of this shape, laid out by `sharding`; read(rows_R) gives windows_…xRx(S+1) of rows of B."""
    B = shape[-2]
    held = sharding.addressable_devices_indices_map(shape).values()
    local_R = np.unique(np.concatenate([np.arange(B)[index[-2]] for index in held]))
    read_xRxS1 = read(local_R)

    def part(index: tuple[slice, ...]) -> np.ndarray:
        return read_xRxS1[(*index[:-2], np.searchsorted(local_R, np.arange(B)[index[-2]]))]

    return jax.make_array_from_callback(shape, sharding, part)
