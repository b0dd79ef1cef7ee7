"""Several processes of one run: how they find each other, and what the first one decides for all.

All compute the same; the first alone writes and looks at what is on disk, and says to the others what they need to
know of it. A process that dies or fails alone makes the others wait for the heartbeat and end by SIGABRT, which
launchers treat as a crash of the whole run. Only `join` may come before JAX is asked for a device.
"""

import collections
import zlib

import jax
import numpy as np
from jax._src import distributed  # its key-value store has no public API (jax 0.11); Orbax uses it too
from jax.experimental import multihost_utils

from moe_jax.errors import Stopped, UserError

_asked: collections.Counter[str] = collections.Counter()
_PATIENCE_MS = 3_600_000  # a process that has died ends the others long before


def join(
    coordinator: str | None, num_processes: int | None, process_id: int | None, multihost: bool, heartbeat_seconds: int
) -> None:
    """Joins the other processes, if the flags of these names say that there are any; a process that is silent for
    `heartbeat_seconds` is dead. Raises UserError on flags that do not fit."""
    three = (coordinator, num_processes, process_id)
    if all(value is None for value in three):
        if not multihost:
            return
    elif multihost:
        raise UserError("--multihost: finds the processes by itself; give it or --coordinator, not both")
    elif None in three:
        raise UserError("--coordinator: give --coordinator, --num_processes and --process_id together")
    elif not 0 <= process_id < num_processes:
        raise UserError(f"--process_id={process_id}: must be from 0 to {num_processes - 1}")
    elif not coordinator.rpartition(":")[2].isdecimal():
        raise UserError(f"--coordinator={coordinator}: must be HOST:PORT")
    if not 1 <= heartbeat_seconds <= 86_400:
        raise UserError(f"--distributed_heartbeat_seconds={heartbeat_seconds}: must be at least 1 and at most 86400")
    try:
        # At the end, too, a process waits for the others no longer than that: they may have died.
        jax.distributed.initialize(
            *three, heartbeat_timeout_seconds=heartbeat_seconds, shutdown_timeout_seconds=heartbeat_seconds
        )
    except ValueError as e:  # the environment does not say how many there are
        raise UserError(f"--multihost: this host knows of no pod ({e}); give --coordinator and the rest") from e


def is_first() -> bool:
    """Whether this is the process that writes."""
    return jax.process_index() == 0


def first_says(value: int) -> int:
    """The first process's value, on every process. Waits for it, however long it takes."""
    if jax.process_count() == 1:
        return value
    return int(multihost_utils.broadcast_one_to_all(np.int32(value)))


def to_first(key: str, text: str) -> list[str]:
    """Every process's text, on the first process; [] on the others. All make their calls with one `key` in the same
    order.

    Goes through the coordination service, so a background thread may call it while the devices compute."""
    if jax.process_count() == 1:
        return [text]
    _asked[key] += 1
    key = f"{key}/{_asked[key]}"  # a key of the service is written once
    client = distributed.global_state.client
    if not is_first():
        client.key_value_set(f"moe_jax/{key}/{jax.process_index()}", text)
        return []
    others = [f"moe_jax/{key}/{i}" for i in range(1, jax.process_count())]
    return [text, *(client.blocking_key_value_get(other, _PATIENCE_MS) for other in others)]


def check_same(job: str) -> None:
    """Raises Stopped where the first process trains another job, as after a crash at the end of a job. The other
    processes then lose this one, and all start again."""
    if jax.process_count() == 1:
        return
    own = zlib.crc32(job.encode()) & 0x7FFFFFFF
    if first_says(own) != own:
        raise Stopped(f"the other processes are not at {job}; start again")


def together(what: str) -> None:
    """Waits until every process has reached this point."""
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(what)
