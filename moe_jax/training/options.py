"""How training is done, not what is trained."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from moe_jax.sweep.heartbeat import Heartbeat


@dataclasses.dataclass(frozen=True)
class Options:
    """`say` gets sentences for the user; `on_step` gets a run's name and heartbeat after each of its steps."""

    say: Callable[[str], None] = print
    on_step: Callable[[str, Heartbeat], None] = lambda name, heartbeat: None
    heartbeat_seconds: float = 30.0
    stop_with_parent: bool = False  # stop when standard input ends
    devices: Sequence[Any] | None = None  # None: all
