"""The one place that names mesh axes: the mesh, and logical axes -> mesh axes.

    replica   between slices: parameters are copied
    data      the batch; and FSDP, parameters are cut along their `embed` axis
    expert    experts are cut; the batch too, so that every device has tokens of its own

Model code uses logical names (batch, embed, expert, …); a Layout maps them to mesh axes.
"""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moe_jax.config.schema import Config, MeshConfig
from moe_jax.errors import UserError
from moe_jax.model.matrices import Matrices

AXES = ("replica", "data", "expert")  # the batch is cut over all of them, `expert` fastest
EXPERT = "expert"
# The axis in front of the others in a packed mesh (training/program.py): each part of the devices trains its runs.
PACK = "pack"

# A logical axis that is not listed is not cut.
_RULES = {"batch": AXES, "embed": "data", "expert": EXPERT}


def mesh_sizes(config: MeshConfig, n_devices: int) -> MeshConfig:
    """config.mesh for n_devices, its -1 replaced. Raises UserError where the product is not n_devices."""
    sizes = [getattr(config, axis) for axis in AXES]
    known = math.prod(s for s in sizes if s != -1)
    if -1 in sizes and n_devices % known == 0:
        sizes[sizes.index(-1)] = n_devices // known
    if math.prod(sizes) != n_devices:
        shape = ", ".join(f"{axis} {getattr(config, axis)}" for axis in AXES)
        raise UserError(f"config.mesh: {shape} is not the {n_devices} devices that are there")
    return MeshConfig(**dict(zip(AXES, sizes, strict=True)))


def make_mesh(config: MeshConfig, devices: Sequence[Any] | None = None) -> Mesh:
    """The mesh over `devices` (default: all there are). Raises UserError where the sizes do not give their number."""
    devices = jax.devices() if devices is None else devices
    sizes = mesh_sizes(config, len(devices))
    # Mesh, not jax.make_mesh: that one makes Explicit axes, and GSPMD must place what we do not.
    return Mesh(_place(list(devices), tuple(getattr(sizes, axis) for axis in AXES)), AXES)


def _place(devices: list[Any], sizes: tuple[int, ...]) -> np.ndarray:
    """Devices in the mesh's shape. On TPUs, neighbours on the mesh are neighbours on the torus, and a slice holds whole
    replicas wherever their number allows it: only gradients then cross the data-center network."""
    slices = [list(d) for _, d in itertools.groupby(devices, key=lambda d: getattr(d, "slice_index", 0))]
    if devices[0].platform != "tpu" or sizes[0] % len(slices):
        return np.asarray(devices).reshape(sizes)
    inner = (sizes[0] // len(slices), *sizes[1:])
    return np.concatenate([mesh_utils.create_device_mesh(inner, d, allow_split_physical_axes=True) for d in slices])


def make_packed_mesh(config: Config, devices: Sequence[Any] | None, runs: int) -> Mesh:
    """A mesh with a `pack` axis in front: as many parts as divide the runs and the devices, and fit what one run needs.
    Raises UserError where the devices are not what config.mesh says, however they are cut."""
    devices = np.asarray(jax.devices() if devices is None else devices)
    parts = [p for p in range(min(runs, devices.size), 0, -1) if runs % p == 0 and devices.size % p == 0]
    for p in parts:
        try:
            mesh = make_mesh(config.mesh, devices[: devices.size // p])
            check_fit(config, mesh)
        except UserError:
            if p == 1:
                raise
            continue
        return Mesh(devices.reshape(p, *mesh.devices.shape), (PACK, *AXES))
    raise AssertionError("one part always divides")


@dataclasses.dataclass(frozen=True)
class Layout:
    """The layout of arrays on one mesh, by their logical axes."""

    mesh: Mesh

    @property
    def check_vma(self) -> bool:
        """Whether shard_maps check what varies over which axis. With JAX 0.10 they cannot where vmap gives them the
        axis `pack` ("requires varying manual axes to match"); the same code is checked wherever runs are not packed."""
        return PACK not in self.mesh.shape

    @property
    def trivial_axes(self) -> tuple[str, ...]:
        """The axes of one device. A shard_map may take as cut over them what every device holds whole: its gradient is
        then not summed over them, for which XLA:CPU would copy it."""
        return tuple(axis for axis in AXES if self.mesh.shape[axis] == 1)

    @property
    def one_cpu(self) -> bool:
        """Whether the mesh is one CPU device: memory traffic there costs more than elsewhere, and compiling less."""
        return self.mesh.size == 1 and self.mesh.devices.flat[0].platform == "cpu"

    def spec(self, *logical: str | None, shape: Sequence[int] | None = None) -> P:
        """The PartitionSpec of an array with these logical axes. With `shape`, axes that do not divide stay whole."""
        names = [_RULES.get(name) for name in logical]
        if shape is not None:
            names = [n if n is None or size % self.size(n) == 0 else None for n, size in zip(names, shape, strict=True)]
        return P(*names)

    def sharding(self, *logical: str | None, shape: Sequence[int] | None = None) -> NamedSharding:
        return NamedSharding(self.mesh, self.spec(*logical, shape=shape))

    def constrain(self, x: jax.Array, *logical: str | None) -> jax.Array:
        """x, constrained to the layout of its logical axes."""
        return jax.lax.with_sharding_constraint(x, self.sharding(*logical))

    def gathered(self, x: jax.Array) -> jax.Array:
        """x, gathered so that every device holds all of it: what FSDP does to a parameter just before its use."""
        return jax.lax.with_sharding_constraint(x, NamedSharding(self.mesh, P()))

    def whole_matrices(self, logical: Sequence[str | None], matrices: Matrices) -> NamedSharding:
        """The layout of a parameter's matrices (Matrices.split) that cuts none of them: the devices that would each
        hold a part of every matrix each hold some of the matrices, where their number divides."""
        counts = matrices.shape[: matrices.counted]
        cut = list(self.spec(*logical[: len(counts)], shape=counts))
        for i in reversed(range(len(counts))):
            axes = (*([] if cut[i] is None else [cut[i]]), _RULES["embed"])
            if counts[i] % self.size(axes) == 0:
                cut[i] = axes
                break
        return NamedSharding(self.mesh, P(*cut))

    def size(self, axes: str | Sequence[str]) -> int:
        """Devices along a mesh axis, or along several."""
        return math.prod(self.mesh.shape[a] for a in ((axes,) if isinstance(axes, str) else axes))

    @property
    def batch_parts(self) -> int:
        return self.size(AXES)


def check_fit(config: Config, mesh: Mesh) -> None:
    """Raises UserError where the batch, the experts or the routing groups cannot be cut over the mesh."""
    layout = Layout(mesh)
    part = config.train.batch_sequences // config.train.microbatches
    shape = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    if part % layout.batch_parts:
        raise UserError(
            f"config.train.batch_sequences = {config.train.batch_sequences}: a microbatch of {part} sequences cannot "
            f"be cut over {layout.batch_parts} devices (mesh: {shape}); use a multiple, or fewer microbatches"
        )
    if config.moe is None:
        return
    experts = mesh.shape[EXPERT]
    if config.moe.n_experts % experts:
        raise UserError(
            f"config.mesh.expert = {experts}: must divide the {config.moe.n_experts} experts (E · G = "
            f"{config.moe.expansion_rate:g} · {config.moe.granularity:g})"
        )
    exchange_axes(config, mesh, part // layout.batch_parts)


def exchange_axes(config: Config, mesh: Mesh, local_sequences: int) -> tuple[str, ...]:
    """Mesh axes over which sequences are exchanged for positions, so that each device holds whole routing groups.

    () where a device's `local_sequences` are whole groups already. UserError where no exchange makes them so."""
    moe, S = config.moe, config.data.sequence_length
    options: list[tuple[str, ...]] = [()]
    if moe.router == "expert_choice":
        options += [(EXPERT,), ("data", EXPERT)]
    for axes in options:
        parts = Layout(mesh).size(axes)
        if local_sequences * parts % moe.group_sequences == 0 and S % parts == 0:
            return axes
    shape = ", ".join(f"{axis} {size}" for axis, size in mesh.shape.items())
    raise UserError(
        f"config.moe.group_sequences = {moe.group_sequences}: a device holds {local_sequences} sequences of {S} tokens "
        f"(mesh: {shape}), from which no whole routing groups can be made; use a smaller mesh or larger microbatches"
    )


def format_table(rows: Sequence[tuple[str, str, tuple[str | None, ...], jax.ShapeDtypeStruct, P]], mesh: Mesh) -> str:
    """A table as text: parameter, shape, what updates it, logical axes, mesh axes, bytes on a device."""
    lines = [("parameter", "shape", "updated by", "logical axes", "mesh axes", "bytes/device")]
    total = 0
    for name, by, logical, array, spec in rows:
        local = NamedSharding(mesh, spec).shard_shape(array.shape)
        size = math.prod(local) * array.dtype.itemsize
        total += size
        lines.append(
            (
                name,
                "×".join(map(str, array.shape)),
                by,
                " ".join(a or "-" for a in logical),
                " ".join(str(s or "-") for s in spec),
                f"{size:,}",
            )
        )
    lines.append(("all parameters", "", "", "", "", f"{total:,}"))
    widths = [max(len(line[i]) for line in lines) for i in range(6)]
    return "\n".join(
        "  ".join(c.rjust(w) if i == 5 else c.ljust(w) for i, (c, w) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )
