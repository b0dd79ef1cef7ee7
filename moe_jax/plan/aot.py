"""Compiles the train step for TPU slices ahead of time, on a machine without TPUs; needs libtpu (extra `plan`).

The step, its shardings and its donation are those of Trainer; only the devices are a topology's. Nothing is allocated.
"""

import dataclasses
import functools
import importlib.util
import math
import os
import re
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import topologies

from moe_jax.chips import CHIPS, Chip
from moe_jax.config.schema import Config, MeshConfig
from moe_jax.errors import UserError
from moe_jax.model import experts, megablox, sharding
from moe_jax.plan import hlo, hlo_traffic
from moe_jax.training import optimizer
from moe_jax.training.step import Trainer

# The experts' products, as JAX names them in a compiled program (op_name).
_EXPERTS = (experts.IN_PRODUCT, experts.OUT_PRODUCT, megablox.PRODUCT)


@dataclasses.dataclass(frozen=True)
class Topology:
    """`slices` TPU slices of one shape, such as v5e:4x4. Raises UserError for a chip or a shape that does not exist."""

    name: str
    slices: int = 1

    def __post_init__(self):
        chip, _, shape = self.name.partition(":")
        known = ", ".join(f"{c.name}:{'x'.join('4' * c.dimensions)}" for c in CHIPS.values())
        if chip not in CHIPS:
            raise UserError(f"--topology={self.name}: there is no chip {chip!r}; write one as {known}")
        if not re.fullmatch("x".join(["[1-9][0-9]*"] * CHIPS[chip].dimensions), shape):
            raise UserError(
                f"--topology={self.name}: the shape of a {chip} slice is {CHIPS[chip].dimensions} numbers of chips; "
                f"write it as {known}"
            )
        if self.slices < 1:
            raise UserError(f"--slices={self.slices}: must be at least 1")

    @property
    def chip(self) -> Chip:
        return CHIPS[self.name.partition(":")[0]]

    @property
    def chips(self) -> int:
        """Chips of all slices together."""
        return math.prod(map(int, self.name.partition(":")[2].split("x"))) * self.slices

    @property
    def n_devices(self) -> int:
        return self.chips * self.chip.devices

    @property
    def hbm_bytes(self) -> int:
        """Bytes of one device's memory that a program may use."""
        return self.chip.available_bytes

    @functools.cached_property
    def devices(self) -> list[Any]:
        """Their JAX devices, slice by slice. Raises UserError where libtpu is missing or knows no such slice."""
        options = {"num_slices": self.slices} if self.slices > 1 else {}
        if self.chip.name == "v4":
            options["chip_config_name"] = "megacore"  # else a chip's two cores are two devices
        if importlib.util.find_spec("libtpu") is None:
            raise UserError(
                "compiling for a TPU on a machine without one needs libtpu; install it with pip install "
                "'moe_jax[plan]' (or pip install libtpu)"
            )
        try:
            found = topologies.get_topology_desc(self.name, platform="tpu", **options).devices
        except jax.errors.JaxRuntimeError as e:
            reason = str(e).split("\n", 1)[0].partition(": ")[2] or str(e)
            raise UserError(f"--topology={self.name}: libtpu gives no such slice: {reason}") from e
        if len(found) != self.n_devices:
            raise UserError(f"--topology={self.name}: libtpu gives {len(found)} devices for it, not {self.n_devices}")
        return list(found)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """One train step compiled for a topology; bytes and FLOPs are per device.

    Where the program does not fit, the compiler says how much memory it needs in all: the parts are None then."""

    topology: str
    slices: int
    mesh: dict[str, int]
    argument_bytes: int  # the state and the batch
    output_bytes: int | None
    alias_bytes: int | None  # outputs that reuse the memory of donated arguments
    temp_bytes: int | None
    code_bytes: int | None
    bytes_per_device: int  # arguments + outputs − aliased + temporaries + code
    hbm_bytes: int  # that a program may use
    fits: bool
    flops: float | None  # XLA's count: loop bodies once, a Pallas kernel by its own estimate
    bytes_accessed: float | None  # likewise
    hbm_traffic: float  # bytes read from and written to main memory, loops counted
    matmul_flops: float  # products in the program, loops counted
    expert_flops: float  # those of the experts
    recomputed_expert_flops: float  # among these, recomputed in the backward pass (remat)
    collectives: dict[str, float]  # kind -> bytes that one device sends in a step, loops counted
    between_slices: dict[str, float]  # kind -> bytes sent between slices (data-center network), apart from the above
    largest_expert_gather: float  # bytes that one device receives in the largest all-gather across `expert`
    unknown_loops: int  # loops whose count could not be read: they count once
    compile_seconds: float

    def to_dict(self) -> dict[str, Any]:
        """As types of JSON; from_dict reads it."""
        return dataclasses.asdict(self)

    @staticmethod
    def from_dict(values: Mapping[str, Any]) -> "Compiled":
        return Compiled(**values)


def environment() -> dict[str, str]:
    """The environment of a child process that compiles: this process's, without a search for TPUs, libtpu's log, or a
    cache of executables (one for a topology cannot be loaded again)."""
    ours = {
        "JAX_PLATFORMS": "cpu",
        "JAX_ENABLE_COMPILATION_CACHE": "false",
        "TPU_SKIP_MDS_QUERY": "true",
        "TPU_ACCELERATOR_TYPE": "v5litepod-1",  # whatever the topology; unset, libtpu searches and complains
        "TPU_WORKER_HOSTNAMES": "localhost",
        "TPU_STDERR_LOG_LEVEL": "3",
        "ALLOW_MULTIPLE_LIBTPU_LOAD": "true",  # processes side by side; none of them opens a TPU
    }
    return dict(os.environ) | ours


def lower_step(config: Config, vocab_size: int, layout: sharding.Layout) -> jax.stages.Lowered:
    """Trainer's step, lowered for abstract arguments. Raises UserError where the config does not fit the mesh."""
    sharding.check_fit(config, layout.mesh)
    end_of_document = 0 if config.data.mask_documents else None  # which token it is changes nothing here
    trainer = Trainer(config, vocab_size, layout, end_of_document)
    sequences = config.train.batch_sequences // config.train.microbatches
    shape = (config.train.microbatches, sequences, config.data.sequence_length + 1)
    schedule = jax.tree.map(lambda a: jax.ShapeDtypeStruct(a.shape, a.dtype), optimizer.schedule_of(config))
    return trainer.step.lower(trainer.abstract_state, jax.ShapeDtypeStruct(shape, np.int32), schedule)


def compile_step(config: Config, vocab_size: int, topology: Topology, mesh_config: MeshConfig) -> Compiled:
    """Compiles the train step of `config` for `topology`. Raises UserError where the mesh, the config or the topology
    is impossible. A program that is too large is no error: its `fits` is False."""
    began = time.monotonic()
    mesh = sharding.make_mesh(mesh_config, topology.devices)
    lowered = lower_step(config, vocab_size, sharding.Layout(mesh))
    with tempfile.TemporaryDirectory() as folder:
        # The text comes from the compiler's own dump: the client cannot read back a program with asynchronous
        # collectives of several operands (jaxlib 0.10.2 with libtpu 0.0.52: executable.as_text() fails).
        options = {"xla_dump_to": folder, "xla_dump_hlo_as_text": True}
        try:
            measured = _measure(lowered.compile(compiler_options=options))
        except jax.errors.JaxRuntimeError as e:
            measured = _too_large(e)
        (text,) = Path(folder).glob("*.after_optimizations.txt")
        measured |= _read(hlo.Program(text.read_text()), topology, mesh.shape[sharding.EXPERT])
    needed = measured["bytes_per_device"]
    return Compiled(
        topology=topology.name,
        slices=topology.slices,
        mesh=dict(mesh.shape),
        hbm_bytes=topology.hbm_bytes,
        fits=needed <= topology.hbm_bytes,
        **measured,
        compile_seconds=time.monotonic() - began,
    )


_PARTS = ("argument_bytes", "output_bytes", "alias_bytes", "temp_bytes", "code_bytes")


def _measure(executable: jax.stages.Compiled) -> dict[str, Any]:
    memory, cost = executable.memory_analysis(), executable.cost_analysis()
    sizes = ("argument_size", "output_size", "alias_size", "temp_size", "generated_code_size")
    parts = {part: getattr(memory, f"{size}_in_bytes") for part, size in zip(_PARTS, sizes, strict=True)}
    needed = sum(parts.values()) - 2 * parts["alias_bytes"]
    return parts | {"bytes_per_device": needed, "flops": cost["flops"], "bytes_accessed": cost["bytes accessed"]}


def _too_large(error: jax.errors.JaxRuntimeError) -> dict[str, Any]:
    """The memory that a program needs, from the compiler's error: "… memory required for HLO temporaries (159.60G)
    exceeds available HBM (15.75G)". The number includes arguments (seen). Raises any other error again."""
    said = re.search(r"memory required[^(]*\(([\d.]+)([KMGT])\) exceeds", str(error))
    if said is None:
        raise error
    needed = int(float(said[1]) * 2 ** (10 * (1 + "KMGT".index(said[2]))))
    return dict.fromkeys((*_PARTS, "flops", "bytes_accessed")) | {"bytes_per_device": needed}


def _read(program: hlo.Program, topology: Topology, expert_parallel: int) -> dict[str, Any]:
    """The counts that are read from the program's text."""

    def sum_by_kind(collectives: list[hlo.Collective]) -> dict[str, float]:
        total: dict[str, float] = {}
        for c in collectives:
            total[c.kind] = total.get(c.kind, 0) + c.bytes * c.times
        return total

    def flops(products: list[hlo.Product]) -> float:
        return sum(p.flops * p.times for p in products)

    # `expert` is the mesh's fastest axis.
    across = [c for c in program.collectives if np.ptp(c.groups % expert_parallel, axis=1).any()]
    by_experts = [p for p in program.products if any(formula in p.op_name for formula in _EXPERTS)]
    return {
        "hbm_traffic": hlo_traffic.traffic(program),
        "matmul_flops": flops(program.products),
        "expert_flops": flops(by_experts),
        # jax.checkpoint names what it recomputes so.
        "recomputed_expert_flops": flops([p for p in by_experts if "rematted_computation" in p.op_name]),
        "collectives": sum_by_kind(program.collectives),
        "between_slices": sum_by_kind(program.transfers(topology.slices)),
        "largest_expert_gather": max((c.bytes for c in across if c.kind == "all-gather"), default=0.0),
        "unknown_loops": program.unknown_loops,
    }
