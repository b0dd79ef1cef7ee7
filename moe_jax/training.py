"""One run, from its folder to its result: resume, train, checkpoint, evaluate, and never anything twice.

Where a run begins, in order of preference:
  1. it has a result: nothing is done;
  2. it has a checkpoint whose digests match: from there, metrics.jsonl cut to the steps before;
  3. from the seed.
"""

import contextlib
import dataclasses
import math
import os
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax

from moe_jax import chips, errors, evaluation, files, optim, processes, provenance, sharding, windows
from moe_jax import config as config_lib
from moe_jax.checkpoint import Checkpoints
from moe_jax.data.batches import Batches
from moe_jax.data.prefetch import Prefetcher
from moe_jax.data.store import Store
from moe_jax.metrics import Recorder
from moe_jax.stopping import StopRequest
from moe_jax.trainer import Trainer, TrainState, window_means
from moe_jax.workdir import PlannedRun, RunDir, StoreIdentity


@dataclasses.dataclass(frozen=True)
class Options:
    """How a run is done, not what it is."""

    say: Callable[[str], None] = print
    on_step: Callable[[dict[str, Any]], None] = lambda beat: None  # gets the heartbeat after each step
    heartbeat_seconds: float = 30.0
    stop_with_parent: bool = False  # stop when standard input ends
    devices: Sequence[Any] | None = None  # None: all


def train(
    planned: PlannedRun, folder: RunDir, store: Store, identity: StoreIdentity, options: Options
) -> dict[str, Any]:
    """Trains the run to its end, from wherever it is, and gives its result, which is then on disk.

    Raises Stopped (saved; start again), UserError for what cannot be trained, OSError for a full disk and the like. A
    non-finite loss is a result too, with `status` "diverged"."""
    finished = _finished(folder, options.say)
    if finished is not None:
        return finished
    config = planned.config
    batches = windows.training_batches(config, store)
    mesh = sharding.make_mesh(config.mesh, options.devices)
    sharding.check_fit(config, mesh)
    writes = processes.is_first()
    if writes:
        folder.create()
    with _only_one(folder):
        finished = _finished(folder, options.say)  # another process may have come first
        if finished is not None:
            return finished
        attempt = folder.begin_attempt() if writes else 0
        run = _Run(planned, folder, store, identity, batches, mesh, attempt, options)
        code, sentence = errors.FAILED, ""
        try:
            result = run.go()
            code = errors.DONE if result["status"] == "done" else errors.DIVERGED
            return result
        except errors.UserError as e:
            code, sentence = e.code, str(e)
            raise
        except BaseException as e:
            sentence = f"{type(e).__name__}: {e}"
            raise
        finally:
            run.recorder.close()
            with contextlib.suppress(Exception):  # a save that was under way is finished; what ends the run is said
                run.checkpoints.close()
            if writes:
                with contextlib.suppress(OSError):  # a full disk has been said already
                    folder.end_attempt(attempt, code, sentence)


def _finished(folder: RunDir, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The run's result, if it has a readable one; a damaged one is set aside and made again from the last
    checkpoint. Of several processes the first looks, and all do as it does."""
    result = None
    if processes.is_first():
        try:
            result = folder.result()
        except files.DamagedFile as e:
            say(f"{e}; it is set aside as {folder.set_damaged_result_aside().name} and made again")
    if not processes.first_says(result is not None):
        return None
    return folder.result() if result is None else result


@contextlib.contextmanager
def _only_one(folder: RunDir, wait_seconds: float = 60.0) -> Iterator[None]:
    """No two processes train one run on one machine: a lock that the system frees however its holder ends."""
    lock = folder.lock(wait_seconds) if processes.is_first() else None
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


class _Run:
    def __init__(
        self, planned: PlannedRun, folder: RunDir, store: Store, identity: StoreIdentity, batches: Batches, mesh: Any,
        attempt: int, options: Options,
    ):  # fmt: skip
        self.planned, self.config, self.folder, self.options = planned, planned.config, folder, options
        self.batches, self.identity, self.mesh, self.attempt = batches, identity, mesh, attempt
        self.writes = processes.is_first()
        self.store = store
        self.held_out = windows.held_out(self.config, store)
        self.recorder = Recorder(
            folder, steps=self.config.steps, batch_tokens=self.config.batch_tokens, attempt=attempt, writes=self.writes,
            flush_seconds=options.heartbeat_seconds,
        )  # fmt: skip
        self.times = self.recorder.times
        self.checkpoints = Checkpoints(folder.checkpoints, self.config.checkpoint.keep, options.say)
        self.saved_step: int | None = None

    def go(self) -> dict[str, Any]:
        with StopRequest(self.options.stop_with_parent) as stop:
            with self.times.spent_on("compile"):
                self.trainer = Trainer(
                    self.config,
                    self.planned.counts["vocabulary_size"],
                    sharding.Layout(self.mesh),
                    self.store.info.end_of_document,
                )
            self._write_run()
            self.options.say(self.trainer.parameter_table())
            state, first = self._begin()
            try:
                with self.times.spent_on("train"):
                    state = self._steps(state, first, stop)
            except _NotFiniteError as e:
                return self._finish(state=None, diverged_step=e.step)
            return self._finish(state, diverged_step=None)

    def _begin(self) -> tuple[TrainState, int]:
        self.recorder.phase("restoring")
        with self.times.spent_on("checkpoint"):
            restored = self.checkpoints.restore(self.trainer.abstract_state)
        if restored is not None:
            state, step = restored
            self.saved_step = step
            self.options.say(f"{self.planned.name}: goes on at step {step} of {self.config.steps}")
        else:
            with self.times.spent_on("compile"):
                self.recorder.phase("compiling")
                state, step = self.trainer.init(self.config.seed), 0
        if lost := self.recorder.resume(step, self.config.train.log_every_steps):
            self.options.say(
                f"{self.folder.metrics}: is damaged, {lost} logged steps are lost; the training is not affected"
            )
        if self.config.tensorboard:
            self.recorder.open_tensorboard(step)
        return state, step

    def _steps(self, state: TrainState, first: int, stop: StopRequest) -> TrainState:
        """Launches step n, then reads the metrics of n − 1: the device never waits for the host."""
        config, last = self.config, self.config.steps
        schedule = optim.schedule_of(config)
        pending: tuple[int, Any] | None = None
        saved_at = time.monotonic()
        with Prefetcher(lambda step: self.trainer.put(self.batches, step), first, last) as prefetched:
            for step, batch in prefetched:
                with self.times.spent_on("compile") if step == first else contextlib.nullcontext():
                    state, metrics = self.trainer.step(state, batch, schedule)
                if step == first:
                    self.recorder.phase("training")
                if pending is not None:
                    self._observe(*pending)
                pending, done = (step, metrics), step + 1
                asked = stop.asked(done)
                evaluate = config.eval.every_steps is not None and done % config.eval.every_steps == 0
                save = asked or self._due(done, saved_at)
                if done < last and (evaluate or save):
                    self._observe(*pending, log=evaluate)  # nothing that is not finite is ever saved
                    pending = None
                    if evaluate:  # before saving: a resumed run starts after this step and would not come back to it
                        self._evaluate(state)
                    if save:
                        self._save(state, done)
                        saved_at = time.monotonic()
                if asked and done < last:
                    self._stop(done)
            self.times.move("train", "data", prefetched.waited)
        if pending is not None:
            self._observe(*pending)
        return state

    def _due(self, done: int, saved_at: float) -> bool:
        every = self.config.checkpoint
        if every.every_steps is not None and done % every.every_steps == 0:
            return True
        if every.every_minutes is None:
            return False
        due = time.monotonic() - saved_at >= 60 * every.every_minutes
        if jax.process_count() == 1:
            return due
        # Clocks differ and all processes must save the same step: the first one's counts, asked for now and then.
        return done % self.config.train.log_every_steps == 0 and bool(processes.first_says(due))

    def _observe(self, step: int, metrics: dict[str, jax.Array], log: bool = False) -> None:
        values = {name: value.tolist() for name, value in jax.device_get(metrics).items()}
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            raise _NotFiniteError(step)
        self.recorder.seen(step, values["loss"])
        if log or step % self.config.train.log_every_steps == 0 or step == self.config.steps - 1:
            self.recorder.log(step, values)
        self.options.on_step(self.recorder.beat)

    def _save(self, state: TrainState, step: int) -> None:
        if self.saved_step == step:
            return
        with self.times.spent_on("checkpoint"):
            self.recorder.flush(metrics=True)
            self.checkpoints.save(state, step)
            self.saved_step = step

    def _stop(self, step: int) -> None:
        self.checkpoints.close()
        self.recorder.phase("stopped")
        self.recorder.flush(metrics=True)
        processes.together("stopped")  # none may leave while another is still writing: it would be taken for dead
        raise errors.Stopped(
            f"{self.planned.name}: stopped at step {step} of {self.config.steps} and saved; "
            "the same command goes on there"
        )

    def _evaluate(self, state: TrainState) -> dict[str, float]:
        """Its values also stand in the newest line of metrics.jsonl, that of the step before."""
        self.recorder.phase("evaluating")
        with self.times.spent_on("eval"):
            values = evaluation.evaluate(self.trainer, state.weights, self.held_out)
        self.recorder.log_evaluation(values)
        self.recorder.phase("training")
        return values

    def _finish(self, state: TrainState | None, diverged_step: int | None) -> dict[str, Any]:
        """The last checkpoint, the last evaluation, and the result: written once, after all else is on disk."""
        evaluated: dict[str, float | None] = {"eval_loss": None, "bits_per_byte": None}
        means: dict[str, float | None] = {"loss": None, "dropped_fraction": None}
        if state is not None:
            self._save(state, self.config.steps)
            means = window_means(state)
            evaluated = self._evaluate(state)
            if not math.isfinite(evaluated["eval_loss"]):
                diverged_step, evaluated = self.config.steps, {"eval_loss": None, "bits_per_byte": None}
        with self.times.spent_on("checkpoint"):
            self.checkpoints.close()
        self.recorder.phase("done" if diverged_step is None else "diverged")
        self.recorder.flush(metrics=True)
        steps = self.config.steps if diverged_step is None else diverged_step
        beat = self.recorder.beat
        devices = provenance.devices()
        result = {
            "name": self.planned.name,
            "status": "done" if diverged_step is None else "diverged",
            "steps": steps,
            **evaluated,
            "train_loss": means["loss"],
            "tokens": steps * self.config.batch_tokens,
            "own_tokens": steps * self.config.batch_tokens,
            "trunk": None,
            "dropped_fraction": means["dropped_fraction"],
            "skipped_steps": None if state is None or state.guard is None else int(state.guard.skipped),
            "max_over_mean_load": self.recorder.last("max_over_mean_load"),
            "config_hash": self.planned.config_hash,
            "attempts": self.attempt,
            "wall_seconds": self.times.total,
            "times": dict(self.times.seconds),
            "tokens_per_second": beat["tokens_per_second"],
            "mfu": self._mfu(beat["tokens_per_second"], devices),
            "git_commit": provenance.git_commit(),
            **{k: devices[k] for k in ("device", "n_devices")},
        }
        if diverged_step is not None:
            good = self.checkpoints.steps()
            result |= {"diverged_step": diverged_step, "last_good_checkpoint": good[-1] if good else None}
        if self.writes:
            self.folder.write_result(result)
        processes.together("finished")  # as in _stop
        return result

    def _mfu(self, tokens_per_second: float | None, devices: dict[str, Any]) -> float | None:
        """Share of the devices' published bf16 peak that train_flops makes; None where no peak is known."""
        peak = chips.peak_flops(devices["device"])
        if peak is None or tokens_per_second is None:
            return None
        counted = self.planned.counts
        return counted["train_flops"] / counted["tokens"] * tokens_per_second / (peak * devices["n_devices"])

    def _write_run(self) -> None:
        if not self.writes:
            return
        self.folder.write_run(
            {
                "name": self.planned.name,
                "began": time.time(),
                "attempt": self.attempt,
                "config": config_lib.to_dict(self.config),
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


class _NotFiniteError(Exception):
    """The loss or the gradient of a step is not finite."""

    def __init__(self, step: int):
        self.step = step
