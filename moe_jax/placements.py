"""On which mesh, in how many microbatches a step runs on so many devices: what the config says, or what fits.

Never the global batch: that is the config's, and part of what a run is.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from moe_jax import sharding
from moe_jax.config import Config, MeshConfig
from moe_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Placement:
    """How a step is cut: sizes of the mesh's axes (none is -1), and parts of the batch one after the other."""

    mesh: MeshConfig
    microbatches: int

    def applied(self, config: Config) -> Config:
        """The config, done this way. Raises UserError where its batch, groups or experts cannot be cut so."""
        train = dataclasses.replace(config.train, microbatches=self.microbatches)
        placed = dataclasses.replace(config, mesh=self.mesh, train=train)
        sharding.check_fit(placed, _Sizes(dataclasses.asdict(self.mesh)))
        return placed


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """A mesh without devices: all that check_fit looks at."""

    shape: dict[str, int]


def configured(config: Config, devices: int) -> Placement:
    """What `train` makes of the config on so many devices. Raises UserError as it does."""
    placement = Placement(sharding.mesh_sizes(config.mesh, devices), config.train.microbatches)
    placement.applied(config)
    return placement


def meshes(config: Config, devices: int, slices: int) -> list[MeshConfig]:
    """Meshes worth a try, the best guess first: the config's own; then as many devices along `expert` as divide the
    experts, the others along `data`, and parameters copied between slices. Between slices the network is slow, so what
    cuts parameters over it comes last."""
    found = []
    with contextlib.suppress(UserError):
        found.append(sharding.mesh_sizes(config.mesh, devices))
    in_slice = devices // slices
    for expert in range(in_slice, 0, -1):
        if in_slice % expert == 0 and (expert == 1 if config.moe is None else config.moe.n_experts % expert == 0):
            found.append(MeshConfig(replica=slices, data=in_slice // expert, expert=expert))
    return sorted(dict.fromkeys(found), key=lambda mesh: mesh.replica % slices != 0)


def options(config: Config, mesh: MeshConfig) -> list[Placement]:
    """Every number of microbatches that this mesh can do, ascending: the fewer, the larger a part and the more memory.

    Raises UserError, with the reason of the first, where there is none."""
    found, reason = [], None
    for microbatches in range(1, config.train.batch_sequences + 1):
        if config.train.batch_sequences % microbatches:
            continue
        placement = Placement(mesh, microbatches)
        try:
            placement.applied(config)
        except UserError as e:
            reason = reason or e
        else:
            found.append(placement)
    if not found:
        raise reason
    return found


def pick(config: Config, devices: int, slices: int, attempt: Callable[[Placement], Any]) -> Any:
    """The first mesh of `meshes` that fits, with the fewest microbatches that do; where none fits, what misses by the
    least. `attempt` compiles a placement: what it gives has `fits` and `bytes_per_device`.

    Raises UserError where no mesh can take the batch, the experts or the groups."""
    nearest, reason = None, None
    for mesh in meshes(config, devices, slices):
        try:
            choices = options(config, mesh)
        except UserError as e:
            reason = reason or e
            continue
        best = _fewest_that_fit(choices, config.train.microbatches, attempt)
        if best.fits:
            return best
        if nearest is None or best.bytes_per_device < nearest.bytes_per_device:
            nearest = best
    if nearest is None:
        raise reason
    return nearest


def _fewest_that_fit(choices: Sequence[Placement], given: int, attempt: Callable[[Placement], Any]) -> Any:
    """By halving from the `given` number on, as more microbatches never take more memory; the last choice's where none
    fits."""
    last = len(choices) - 1
    start = next((i for i, choice in enumerate(choices) if choice.microbatches == given), last)
    best = attempt(choices[start])
    low, high = 0, start  # choices[high] fits
    if not best.fits:
        if start == last:
            return best
        best = attempt(choices[last])
        if not best.fits:
            return best
        low, high = start + 1, last
    while low < high:
        middle = (low + high) // 2
        tried = attempt(choices[middle])
        if tried.fits:
            best, high = tried, middle
        else:
            low = middle + 1
    return best
