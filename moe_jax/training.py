"""One run, from its folder to its result: resume, train, checkpoint, evaluate, and never anything twice.

Where a run begins, in order of preference:
  1. it has a result: nothing is done;
  2. it has a checkpoint whose digests match: from there, metrics.jsonl cut to the steps before;
  3. its trunk has one, at the step where the run branches off or before: from there, with the trunk's metrics so far;
  4. from the seed.
"""

import contextlib
import dataclasses
import functools
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

import jax

from moe_jax import (
    attempts,
    chips,
    config_fields,
    errors,
    evaluation,
    grid,
    optim,
    processes,
    profiling,
    provenance,
    sharding,
    sinks,
    windows,
)
from moe_jax.attempts import Attempt
from moe_jax.checkpoint import Checkpoints
from moe_jax.data.batches import Batches
from moe_jax.data.prefetch import Prefetcher
from moe_jax.data.store import Store
from moe_jax.jobs import Trunk
from moe_jax.manifest import PlannedRun, StoreIdentity
from moe_jax.metrics import Recorder
from moe_jax.rundir import RunDir
from moe_jax.stopping import StopRequest
from moe_jax.tables import number
from moe_jax.trainer import Trainer, TrainState, window_means
from moe_jax.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Options:
    """How a run is done, not what it is."""

    say: Callable[[str], None] = print
    on_step: Callable[[dict[str, Any]], None] = lambda beat: None  # gets the heartbeat after each step
    heartbeat_seconds: float = 30.0
    stop_with_parent: bool = False  # stop when standard input ends
    devices: Sequence[Any] | None = None  # None: all


def train(
    planned: PlannedRun, folder: RunDir, store: Store, identity: StoreIdentity, options: Options,
    trunk: RunDir | None = None,
) -> dict[str, Any]:  # fmt: skip
    """Trains the run to its end, from wherever it is or from its trunk's folder, and gives its result, which is then on
    disk.

    Raises Stopped (saved; start again), UserError for what cannot be trained, OSError for a full disk and the like. A
    non-finite loss is a result too, with `status` "diverged"."""

    def run(batches: Batches, mesh: Any, attempt: Attempt) -> Training:
        return Training(planned, folder, store, identity, batches, mesh, attempt, options, planned.config.steps, trunk)

    def result() -> dict[str, Any] | None:
        attempts.refuse_another(folder, planned.config_hash)
        return attempts.finished(folder, options.say)

    return _go(planned, folder, store, options, result, run)


def train_trunk(
    trunk: Trunk, workdir: Workdir, store: Store, identity: StoreIdentity, options: Options
) -> dict[str, Any]:
    """Trains a trunk up to the last point that a branch without a result needs; as `train`, but a trunk has no result.
    Gives its name, status and steps."""
    planned, folder = trunk.planned, workdir.trunk_dir(trunk.name)
    planned = dataclasses.replace(planned, config_hash=_trunk_hash(planned, identity))

    def reached() -> dict[str, Any] | None:
        attempts.refuse_another(folder, planned.config_hash)
        saved = max(folder.saved_steps(), default=0)
        if processes.first_says(saved < trunk.end(workdir)):
            return None
        return {"name": trunk.name, "status": "done", "steps": saved}

    def run(batches: Batches, mesh: Any, attempt: Attempt) -> Training:
        end = processes.first_says(trunk.end(workdir))
        return _TrunkTraining(
            planned, folder, store, identity, batches, mesh, attempt, options, end, always=trunk.points
        )

    return _go(planned, folder, store, options, reached, run)


def _go(
    planned: PlannedRun, folder: RunDir, store: Store, options: Options,
    result_of: Callable[[], dict[str, Any] | None], make: Callable[[Batches, Any, Attempt], "Training"],
) -> dict[str, Any]:  # fmt: skip
    """One attempt at what has no result yet, by one process at a time, noted in the folder."""
    if (result := result_of()) is not None:
        return result
    config = planned.config
    batches = windows.training_batches(config, store)
    mesh = sharding.make_mesh(config.mesh, options.devices)
    sharding.check_fit(config, mesh)
    writes = processes.is_first()
    if writes:
        folder.create()
    with attempts.only_one(folder):
        if (result := result_of()) is not None:  # another process may have come first
            return result
        attempt = attempts.begin(folder)
        run = make(batches, mesh, attempt)
        with attempts.noted(run, attempt):
            return run.go()


def _trunk_hash(planned: PlannedRun, identity: StoreIdentity) -> str:
    return grid.trunk_hash(planned.config, identity.sha256, planned.counts["vocabulary_size"])


class Training:
    """A run up to step `last`; `trunk` is the folder that it may begin from, `always` the steps whose checkpoint is
    made in any case, and kept; `packed` runs share the mesh."""

    def __init__(
        self, planned: PlannedRun, folder: RunDir, store: Store, identity: StoreIdentity, batches: Batches, mesh: Any,
        attempt: Attempt, options: Options, last: int, trunk: RunDir | None = None, always: Sequence[int] = (),
        packed: int = 1,
    ):  # fmt: skip
        self.planned, self.config, self.folder, self.options = planned, planned.config, folder, options
        self.last, self.always = last, frozenset(always)
        self.trunk, self.branched_at = trunk, 0
        self.batches, self.identity, self.mesh, self.attempt = batches, identity, mesh, attempt.number
        self.writes = processes.is_first()
        self.store = store
        self.held_out = windows.held_out(self.config, store)
        self.recorder = Recorder(
            folder, steps=self.last, batch_tokens=self.config.batch_tokens, attempt=attempt.number, writes=self.writes,
            flush_seconds=options.heartbeat_seconds, mfu_of_rate=_mfu_of_rate(planned.counts, mesh, packed),
            check_owner=lambda: folder.check_newest(attempt.number, attempt.token),
        )  # fmt: skip
        self.times = self.recorder.times
        self.checkpoints = Checkpoints(folder.checkpoints, self.config.checkpoint.keep, options.say, self.always)
        self.saved_step: int | None = None
        self.result: dict[str, Any] | None = None  # once it has ended

    def go(self) -> dict[str, Any]:
        with StopRequest(self.options.stop_with_parent) as stop:
            with self.times.spent_on("compile"):
                self.trainer = Trainer(
                    self.config,
                    self.planned.counts["vocabulary_size"],
                    sharding.Layout(self.mesh),
                    self.store.info.end_of_document,
                )
            self.options.say(self.trainer.parameter_table())
            state, first = self.begin()
            self.write_run()
            try:
                with self.times.spent_on("train"):
                    state = self._steps(state, first, stop)
            except NotFiniteError as e:
                return self.finish(state=None, diverged_step=e.step)
            return self.finish(state, diverged_step=None)

    def begin(self, at_most: int | None = None) -> tuple[TrainState, int]:
        """(state, step) from which it goes on; of its own checkpoints, from none above `at_most`."""
        self.recorder.phase("restoring")
        with self.times.spent_on("checkpoint"):
            restored = self.checkpoints.restore(self.trainer.abstract_state, at_most)
            forgotten = self.checkpoints.forget_after(0 if restored is None else restored[1])
            branched = self._from_trunk() if restored is None else None
        if restored is not None:
            state, step = restored
            self.saved_step = step
            self.branched_at = int(number(self.folder.saved(step).get("branched_at")) or 0)
            self.options.say(f"{self.planned.name}: goes on at step {step} of {self.last}")
        elif branched is not None:
            state, step = branched
            self.branched_at = step
            self.options.say(f"{self.planned.name}: branches off {self.trunk.name} at step {step} of {self.last}")
        else:
            if forgotten:
                self.options.say(f"{self.planned.name}: begins at its seed: none of its checkpoints can be used")
            with self.times.spent_on("compile"):
                self.recorder.phase("compiling")
                state, step = self.trainer.init(self.config.seed), 0
        logged_in = None if branched is None else self.trunk
        if self.recorder.resume(step, logged_in):
            metrics = (logged_in or self.folder).metrics
            self.options.say(
                f"{metrics}: is damaged, some steps logged before {step} are lost; the training is not affected"
            )
        if self.config.tensorboard and self.writes:
            self.recorder.add(sinks.TensorBoard(self.folder, step))
        if self.config.wandb is not None and self.writes:
            self.recorder.add(
                sinks.WeightsAndBiases(self.folder, self.config.wandb, config_fields.to_dict(self.config))
            )
        return state, step

    def _from_trunk(self) -> tuple[TrainState, int] | None:
        """(state, step) of the trunk's newest checkpoint that is on this run's path."""
        if self.trunk is None:
            return None
        attempts.refuse_another(self.trunk, _trunk_hash(self.planned, self.identity))
        checkpoints = Checkpoints(self.trunk.checkpoints, self.config.checkpoint.keep, self.options.say)
        try:
            return checkpoints.restore(self.trainer.abstract_state, at_most=self.config.decay_start)
        finally:
            checkpoints.close()

    def _notes(self) -> dict[str, Any]:
        """What stands beside a checkpoint's digests: of which config it is, and where the run branched off."""
        return {"config_hash": self.planned.config_hash, "branched_at": self.branched_at}

    def _steps(self, state: TrainState, first: int, stop: StopRequest) -> TrainState:
        """Launches step n, then reads the metrics of n − 1: the device never waits for the host."""
        config, last = self.config, self.last
        schedule = optim.schedule_of(config)
        pending: tuple[int, Any] | None = None
        saved_at = time.monotonic()
        tracer = profiling.Tracer(config.profile, self.folder.path / "profile", self.writes)
        load = functools.partial(self.trainer.put, self.batches)
        waiting = functools.partial(self.times.spent_on, "data")
        with Prefetcher(load, first, last, waiting) as prefetched, tracer:
            for step, batch in prefetched:
                tracer.before(step, state)
                with self.times.spent_on("compile") if step == first else contextlib.nullcontext():
                    state, metrics = self.trainer.step(state, batch, schedule)
                if step == first:
                    self.recorder.phase("training")
                if pending is not None:
                    self.observe(*pending)
                pending, done = (step, metrics), step + 1
                asked = stop.asked(done)
                evaluate = config.eval.every_steps is not None and done % config.eval.every_steps == 0
                save = asked or self.due(done, saved_at)
                if done < config.steps and (evaluate or save):
                    self.observe(*pending, log=evaluate)  # nothing that is not finite is ever saved
                    pending = None
                    if evaluate:  # before saving: a resumed run starts after this step and would not come back to it
                        self.evaluate(state)
                    if save:
                        self.save(state, done)
                        saved_at = time.monotonic()
                if asked and done < last:
                    raise self.put_down(done)
        if pending is not None:
            self.observe(*pending)
        return state

    def due(self, done: int, saved_at: float) -> bool:
        every = self.config.checkpoint
        if done in self.always:
            return True
        if every.every_steps is not None and done % every.every_steps == 0:
            return True
        if every.every_minutes is None:
            return False
        due = time.monotonic() - saved_at >= 60 * every.every_minutes
        if jax.process_count() == 1:
            return due
        # Clocks differ and all processes must save the same step: the first one's counts, asked for now and then.
        return done % self.config.train.log_every_steps == 0 and bool(processes.first_says(due))

    def observe(self, step: int, metrics: dict[str, jax.Array], log: bool = False) -> None:
        self.recorder.check()
        values = {name: value.tolist() for name, value in jax.device_get(metrics).items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            raise NotFiniteError(step)
        self.recorder.seen(step, values["loss"])
        if log or step % self.config.train.log_every_steps == 0 or step == self.config.steps - 1:
            self.recorder.log(step, values)
        self.options.on_step(self.recorder.beat)

    def save(self, state: TrainState, step: int) -> None:
        if self.saved_step == step:
            return
        with self.times.spent_on("checkpoint"):
            self.recorder.flush(metrics=True)
            self.checkpoints.save(state, step, self._notes())
            self.saved_step = step

    def put_down(self, step: int) -> errors.Stopped:
        """What to raise where it stops after `step` updates, saved."""
        self.checkpoints.close()
        self.recorder.phase("stopped")
        self.recorder.flush(metrics=True)
        processes.together("stopped")  # none may leave while another is still writing: it would be taken for dead
        return errors.Stopped(
            f"{self.planned.name}: stopped at step {step} of {self.last} and saved; the same command goes on there"
        )

    def evaluate(self, state: TrainState) -> dict[str, float]:
        """Its values also stand in the newest line of metrics.jsonl, that of the step before."""
        self.recorder.phase("evaluating")
        with self.times.spent_on("eval"):
            values = evaluation.evaluate(self.trainer, state.weights, self.held_out)
        self.recorder.log_evaluation(values)
        self.recorder.phase("training")
        return values

    def finish(self, state: TrainState | None, diverged_step: int | None) -> dict[str, Any]:
        """The last checkpoint, the last evaluation, and the result: written once, after all else is on disk."""
        evaluated: dict[str, float | None] = {"eval_loss": None, "bits_per_byte": None}
        means: dict[str, float | None] = {"loss": None, "dropped_fraction": None}
        if state is not None:
            self.save(state, self.config.steps)
            means = window_means(state)
            evaluated = self.evaluate(state)
            if not math.isfinite(evaluated["eval_loss"]):
                diverged_step, evaluated = self.config.steps, {"eval_loss": None, "bits_per_byte": None}
        with self.times.spent_on("checkpoint"):
            self.checkpoints.close()
        self.recorder.phase("done" if diverged_step is None else "diverged")
        self.recorder.flush(metrics=True)
        steps = self.config.steps if diverged_step is None else diverged_step
        beat, times = self.recorder.beat, self.times.seconds
        devices = provenance.devices()
        result = {
            "name": self.planned.name,
            "status": "done" if diverged_step is None else "diverged",
            "steps": steps,
            **evaluated,
            "train_loss": means["loss"],
            "tokens": steps * self.config.batch_tokens,
            "own_tokens": (steps - self.branched_at) * self.config.batch_tokens,
            "trunk": self.trunk.name if self.branched_at else None,
            "dropped_fraction": means["dropped_fraction"],
            "skipped_steps": None if state is None or state.guard is None else int(state.guard.skipped),
            "max_over_mean_load": self.recorder.last("max_over_mean_load"),
            "config_hash": self.planned.config_hash,
            "attempts": self.attempt,
            "wall_seconds": sum(times.values()),
            "times": times,
            "tokens_per_second": beat["tokens_per_second"],
            "mfu": beat["mfu"],
            "git_commit": provenance.git_commit(),
            **{k: devices[k] for k in ("device", "n_devices")},
        }
        if diverged_step is not None:
            good = self.checkpoints.steps() or ([self.branched_at] if self.branched_at else [None])
            result |= {"diverged_step": diverged_step, "last_good_checkpoint": good[-1]}
        if self.writes:
            self.folder.write_result(result)
        processes.together("finished")  # as in put_down
        self.result = result
        return result

    def write_run(self) -> None:
        if not self.writes:
            return
        self.folder.write_run(
            {
                "name": self.planned.name,
                "began": time.time(),
                "attempt": self.attempt,
                "config": config_fields.to_dict(self.config),
                "config_hash": self.planned.config_hash,
                "counts": self.planned.counts,
                "store": dataclasses.asdict(self.identity)
                | {"vocabulary": self.store.info.vocabulary, "end_of_document": self.store.info.end_of_document},
                "mesh": dict(self.mesh.shape),
                **provenance.devices(),
                "git_commit": provenance.git_commit(),
                "versions": provenance.versions(),
            }
        )


class _TrunkTraining(Training):
    """A trunk: what it leaves is in its checkpoints."""

    def finish(self, state: TrainState | None, diverged_step: int | None) -> dict[str, Any]:
        with self.times.spent_on("checkpoint"):
            self.checkpoints.close()
        self.recorder.phase("done" if diverged_step is None else "diverged")
        self.recorder.flush(metrics=True)
        processes.together("finished")
        status, steps = ("done", self.last) if diverged_step is None else ("diverged", diverged_step)
        self.result = {"name": self.planned.name, "status": status, "steps": steps}
        return self.result


def _mfu_of_rate(counts: dict[str, Any], mesh: jax.sharding.Mesh, packed: int) -> float | None:
    """MFU of one token a second: the share of the devices' published bf16 peak that train_flops makes, of as many
    devices as each of `packed` runs has; None where no peak is known."""
    peak = chips.peak_flops(mesh.devices.flat[0].device_kind)
    return None if peak is None else counts["train_flops"] / counts["tokens"] / (peak * mesh.devices.size / packed)


class NotFiniteError(Exception):
    """The loss or the gradient of a step is not finite."""

    def __init__(self, step: int):
        self.step = step
