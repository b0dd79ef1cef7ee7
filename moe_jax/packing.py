"""Runs of one shape that train together in one program: small cells fill a machine that is too large for one of them.

Their states are stacked, and the step is that of one run under vmap, whose axis is the mesh axis `pack`: each part of
the devices trains its share of the runs, and nothing passes between them. What differs between the runs (seed,
learning rate) enters as values. In every file each is its own run, whose checkpoints can be restored alone. One that
diverges gets its result; its place goes on with numbers that nobody reads, and the others do not notice.
"""

import contextlib
import functools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from moe_jax import attempts, optim, sharding, windows
from moe_jax.data.prefetch import Prefetcher
from moe_jax.data.store import Store
from moe_jax.errors import UserError
from moe_jax.manifest import PlannedRun, StoreIdentity
from moe_jax.stopping import StopRequest
from moe_jax.trainer import Trainer, TrainState
from moe_jax.training import NotFiniteError, Options, Training
from moe_jax.workdir import Workdir


class Pack:
    """The compiled functions of stacked runs; `trainer` is that of one of them on the packed mesh."""

    def __init__(self, trainer: Trainer):
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
        self.stack = jax.jit(lambda each: jax.tree.map(lambda *x: jnp.stack(x), *each), out_shardings=states)
        self.one = jax.jit(lambda state, i: jax.tree.map(lambda x: x[i], state), out_shardings=trainer.shardings)


def train(
    planned: Sequence[PlannedRun], workdir: Workdir, store: Store, identity: StoreIdentity,
    options_of: Callable[[str], Options],
) -> list[dict[str, Any]]:  # fmt: skip
    """Trains the runs to their ends, from wherever they are, and gives their results; raises as training.train. Runs
    that stopped at different steps go on at the newest that all have saved: where the grid has grown, from the seed, as
    the program takes as long for all as for some of them."""
    if jax.process_count() > 1:
        raise UserError("config.sweep.pack: packed runs are trained by one process; use 1 on several hosts")
    with contextlib.ExitStack() as stack:
        for run in planned:
            folder = workdir.run_dir(run.name)
            folder.create()
            stack.enter_context(attempts.only_one(folder))
            attempts.refuse_another(folder, run.config_hash)
        results = {r.name: attempts.finished(workdir.run_dir(r.name), options_of(r.name).say) for r in planned}
        if None not in results.values():
            return list(results.values())
        options = options_of(planned[0].name)
        mesh = sharding.make_packed_mesh(planned[0].config, options.devices, len(planned))

        def start(run: PlannedRun) -> Training:
            folder, batches = workdir.run_dir(run.name), windows.training_batches(run.config, store)
            attempt = attempts.begin(folder)
            one = Training(
                run, folder, store, identity, batches, mesh, attempt, options_of(run.name), run.config.steps,
                packed=len(planned),
            )  # fmt: skip
            stack.enter_context(attempts.noted(one, attempt))
            return one

        # A run that is done keeps its place, so that the program is the same as before.
        runs = [start(run) if results[run.name] is None else None for run in planned]
        with StopRequest(options.stop_with_parent) as stop:
            _Packed(planned, runs, store, mesh).go(stop)
        return [results[run.name] if one is None else one.result for run, one in zip(planned, runs, strict=True)]


def _newest_common(steps: Sequence[Sequence[int]]) -> int:
    """The newest step that all have saved; 0 where there is none."""
    return max(set.intersection(*map(set, steps)), default=0) if steps else 0


class _Packed:
    """The runs of a pack, by place; None where one had its result before."""

    def __init__(self, planned: Sequence[PlannedRun], runs: Sequence[Training | None], store: Store, mesh: Mesh):
        self.planned, self.runs, self.config = planned, runs, planned[0].config
        V = planned[0].counts["vocabulary_size"]
        with self._all_spend("compile"):
            self.trainer = Trainer(self.config, V, sharding.Layout(mesh), store.info.end_of_document)
            self.pack = Pack(self.trainer)
        self.batches = {run.config.seed: windows.training_batches(run.config, store) for run in planned}

    @property
    def open(self) -> list[tuple[int, Training]]:
        """(place, run) of those without a result."""
        return [(i, run) for i, run in enumerate(self.runs) if run is not None and run.result is None]

    @contextlib.contextmanager
    def _all_spend(self, what: str) -> Iterator[None]:
        """What all do together counts for each of them."""
        with contextlib.ExitStack() as stack:
            for _, run in self.open:
                stack.enter_context(run.times.spent_on(what))
            yield

    def go(self, stop: StopRequest) -> None:
        state, first = self._begin()
        with self._all_spend("train"):
            state = self._steps(state, first, stop)
        self._wait()
        for i, run in self.open:
            run.finish(self.pack.one(state, i), diverged_step=None)

    def _wait(self) -> None:
        """Until all have the step that was saved last: only then may one save the next and retire the one before it,
        or a kill could leave them without a step in common."""
        with self._all_spend("checkpoint"):
            for _, run in self.open:
                run.checkpoints.wait()

    def _begin(self) -> tuple[TrainState, int]:
        saved = {run.planned.name: run.checkpoints.steps() for _, run in self.open}
        at_most = _newest_common([*saved.values()])
        if ahead := [name for name, steps in saved.items() if max(steps, default=0) > at_most]:
            self.open[0][1].options.say(
                f"{', '.join(ahead)}: had saved more, and goes back to step {at_most}, the newest that all runs of the "
                "pack have"
            )
        for _, run in self.open:
            run.trainer = self.trainer
        while True:
            begun = {i: run.begin(at_most) for i, run in self.open}
            steps = {step for _, step in begun.values()}
            if len(steps) == 1:
                break
            at_most = min(steps)  # a checkpoint was damaged
        for _, run in self.open:
            run.write_run()
        states = [
            begun[i][0] if i in begun else self.trainer.init(run.config.seed) for i, run in enumerate(self.planned)
        ]
        return self.pack.stack(states), steps.pop()

    def _put(self, step: int) -> jax.Array:
        """windows_nxMxBx(S+1) of a step on the devices, n runs; those of one seed see the same."""
        M, B = self.config.train.microbatches, self.config.train.batch_sequences
        read = {seed: b.batch(step, np.arange(B)).reshape(M, B // M, -1) for seed, b in self.batches.items()}
        return jax.device_put(np.stack([read[run.config.seed] for run in self.planned]), self.pack.batch_sharding)

    def _steps(self, state: TrainState, first: int, stop: StopRequest) -> TrainState:
        """As Training's: launches step n, then reads the metrics of n − 1."""
        every, last = self.config.eval.every_steps, self.config.steps
        schedules = jax.tree.map(lambda *x: np.stack(x), *[optim.schedule_of(run.config) for run in self.planned])
        pending: tuple[int, Any] | None = None
        saved_at = time.monotonic()
        with Prefetcher(self._put, first, last, functools.partial(self._all_spend, "data")) as prefetched:
            for step, batch in prefetched:
                with self._all_spend("compile") if step == first else contextlib.nullcontext():
                    state, metrics = self.pack.step(state, batch, schedules)
                if step == first:
                    for _, run in self.open:
                        run.recorder.phase("training")
                if pending is not None:
                    self._observe(*pending)
                pending, done = (step, metrics), step + 1
                asked = stop.asked(done)
                evaluate = every is not None and done % every == 0
                save = asked or any(run.due(done, saved_at) for _, run in self.open[:1])
                if done < last and (evaluate or save):
                    self._observe(*pending, log=evaluate)
                    pending = None
                    if save:
                        self._wait()
                    for i, run in self.open:
                        one = self.pack.one(state, i)
                        if evaluate:
                            run.evaluate(one)
                        if save:
                            run.save(one, done)
                    saved_at = time.monotonic() if save else saved_at
                if not self.open:
                    return state
                if asked and done < last:
                    stopped = [run.put_down(done) for _, run in self.open]
                    raise stopped[0]
        if pending is not None:
            self._observe(*pending)
        return state

    def _observe(self, step: int, metrics: dict[str, jax.Array], log: bool = False) -> None:
        values = jax.device_get(metrics)
        for i, run in self.open:
            try:
                run.observe(step, jax.tree.map(lambda x, i=i: x[i], values), log)
            except NotFiniteError as e:
                run.finish(None, e.step)
