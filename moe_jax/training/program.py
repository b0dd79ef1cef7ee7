"""The compiled step of what trains together: one run, or a pack of runs of one shape in one program.

Small runs fill a machine that is too large for one of them. The states of a pack are stacked, and its step is that of
one run under vmap, whose axis is the mesh axis `pack`: each part of the devices trains its share of the runs, and
nothing passes between them. What differs between the runs (seed, learning rate) enters as values.
"""

from collections.abc import Sequence
from typing import Any, Protocol

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moe_jax.config.identity import StepShape
from moe_jax.config.schema import Config
from moe_jax.data.batches import Batches
from moe_jax.model import sharding
from moe_jax.training import memory, optimizer
from moe_jax.training.put import put_windows
from moe_jax.training.step import Trainer, TrainState

Metrics = dict[str, jax.Array]


class Program(Protocol):
    """How the loop trains n ≥ 1 runs at once; `trainer` is that of one of them."""

    trainer: Trainer

    def schedule(self, configs: Sequence[Config]) -> optimizer.Schedule:
        """The runs' schedules as values of the step."""

    def put(self, batches: Sequence[Batches], step: int) -> jax.Array:
        """The runs' batches of a step, on the devices."""

    def step(self, state: TrainState, batch: jax.Array, schedule: optimizer.Schedule) -> tuple[TrainState, Metrics]:
        """The state after one more update of every run, and its metrics."""

    def join(self, states: Sequence[TrainState]) -> TrainState:
        """One state a run -> the state of all."""

    def state_of(self, state: TrainState, i: int) -> TrainState:
        """The state of run i."""

    def values_of(self, metrics: Metrics) -> list[dict[str, Any]]:
        """The metrics of every run, on the host: numbers, or lists by layer."""


class Single:
    """The program of one run."""

    def __init__(self, trainer: Trainer):
        self.trainer, self.step = trainer, trainer.step

    def schedule(self, configs: Sequence[Config]) -> optimizer.Schedule:
        return optimizer.schedule_of(configs[0])

    def put(self, batches: Sequence[Batches], step: int) -> jax.Array:
        return self.trainer.put(batches[0], step)

    def join(self, states: Sequence[TrainState]) -> TrainState:
        return states[0]

    def state_of(self, state: TrainState, i: int) -> TrainState:
        return state

    def values_of(self, metrics: Metrics) -> list[dict[str, Any]]:
        return [{name: value.tolist() for name, value in jax.device_get(metrics).items()}]


class Pack:
    """The program of n stacked runs; `trainer` is that of one of them on the packed mesh."""

    def __init__(self, trainer: Trainer, n: int):
        self.trainer, self.n = trainer, n
        mesh = trainer.layout.mesh

        def packed(one: NamedSharding) -> NamedSharding:
            return NamedSharding(mesh, P(sharding.PACK, *one.spec))

        states, whole = jax.tree.map(packed, trainer.shardings), NamedSharding(mesh, P(sharding.PACK))
        self.batch_sharding = packed(trainer.batch_sharding)
        self.step = jax.jit(
            jax.vmap(trainer.update, spmd_axis_name=sharding.PACK),
            in_shardings=(states, self.batch_sharding, whole),
            out_shardings=(states, whole),
            donate_argnums=0,
        )
        self.join = jax.jit(lambda each: jax.tree.map(lambda *x: jnp.stack(x), *each), out_shardings=states)
        self.state_of = jax.jit(lambda state, i: jax.tree.map(lambda x: x[i], state), out_shardings=trainer.shardings)

    def schedule(self, configs: Sequence[Config]) -> optimizer.Schedule:
        return jax.tree.map(lambda *x: np.stack(x), *map(optimizer.schedule_of, configs))

    def put(self, batches: Sequence[Batches], step: int) -> jax.Array:
        """windows_nxMxBx(S+1); runs that share a seed share their batches, which are read once."""

        def read(rows_R: np.ndarray) -> np.ndarray:
            once = {id(b): self.trainer.read(b, step, rows_R) for b in batches}
            return np.stack([once[id(b)] for b in batches])

        return put_windows(read, (self.n, *self.trainer.batch_shape), self.batch_sharding)

    def values_of(self, metrics: Metrics) -> list[dict[str, Any]]:
        values = jax.device_get(metrics)
        return [{name: value[i].tolist() for name, value in values.items()} for i in range(self.n)]


class Programs:
    """The program that this process trained with last, which the next run of its shape takes over.

    One alone is kept: launchers let a process train the runs of one shape before those of another. It is valid as long
    as JAX's configuration stays as it is."""

    def __init__(self):
        self._key: tuple[Any, ...] | None = None
        self._program: Program | None = None

    def program(self, config: Config, vocab_size: int, mesh: Mesh, end_of_document: int | None, n: int) -> Program:
        """The program for n runs of this shape on this mesh, compiled or still to be compiled."""
        key = (StepShape(config, vocab_size).key, mesh, end_of_document, n)
        if key != self._key:
            self._key = self._program = None  # the last one is freed before the next one needs memory
            memory.refuse_too_large(config, vocab_size, mesh)
            trainer = Trainer(config, vocab_size, sharding.Layout(mesh), end_of_document)
            self._key, self._program = key, Single(trainer) if n == 1 else Pack(trainer, n)
        return self._program
