"""How a step is cut over devices: the mesh and the number of microbatches, as the config says or as fits in memory.

The global batch is never changed: it belongs to the config and defines the run.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from moe_jax.config.schema import Config, MeshConfig
from moe_jax.errors import UserError
from moe_jax.model import sharding


@dataclasses.dataclass(frozen=True)
class Placement:
    """Sizes of the mesh's axes (none is -1), and the number of microbatches that are trained one after the other."""

    mesh: MeshConfig
    microbatches: int

    def applied(self, config: Config) -> Config:
        """The config with this mesh and these microbatches. Raises UserError where its batch, routing groups or experts
        cannot be divided so."""
        train = dataclasses.replace(config.train, microbatches=self.microbatches)
        placed = dataclasses.replace(config, mesh=self.mesh, train=train)
        sharding.check_fit(placed, _Sizes(dataclasses.asdict(self.mesh)))
        return placed


@dataclasses.dataclass(frozen=True)
class _Sizes:
    """Stands for a mesh: check_fit reads nothing but its shape."""

    shape: dict[str, int]


def configured(config: Config, devices: int) -> Placement:
    """The placement that `train` uses for this config on this number of devices. Raises UserError as `train` does."""
    placement = Placement(sharding.mesh_sizes(config.mesh, devices), config.train.microbatches)
    placement.applied(config)
    return placement


def meshes(config: Config, devices: int, slices: int) -> list[MeshConfig]:
    """Meshes to try, the best guess first: the config's own; then as many devices along `expert` as divide the experts,
    the others along `data`, with a copy of the parameters on each slice. Meshes that shard parameters between slices,
    where the network is slow, come last."""
    found = []
    with contextlib.suppress(UserError):
        found.append(sharding.mesh_sizes(config.mesh, devices))
    in_slice = devices // slices
    for expert in range(in_slice, 0, -1):
        if in_slice % expert == 0 and (expert == 1 if config.moe is None else config.moe.n_experts % expert == 0):
            found.append(MeshConfig(replica=slices, data=in_slice // expert, expert=expert))
    return sorted(dict.fromkeys(found), key=lambda mesh: mesh.replica % slices != 0)


def options(config: Config, mesh: MeshConfig) -> list[Placement]:
    """A placement for every number of microbatches that is possible on this mesh, in ascending order: fewer
    microbatches need more memory.

    Where none is possible, raises the UserError of the first."""
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
    """The first of `meshes` that fits in memory, with the fewest microbatches; where none fits, the nearest miss.

    `attempt` compiles a placement and returns an object with `fits` and `bytes_per_device`. Raises UserError where no
    mesh can divide the batch, the experts or the routing groups."""
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
    """Bisects from the `given` number, since more microbatches never take more memory. Where none fits, the result is
    that of the last choice."""
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
