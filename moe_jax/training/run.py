"""One run while it is trained: its log, its checkpoints and its result. The loop over its steps is loop.py's.

Where a run begins, in order of preference:
  1. it has a result: nothing is done (goal.result_of);
  2. it has a checkpoint whose digests match: from there, metrics.jsonl cut to the steps before;
  3. its trunk has one, at the step where the run branches off or before: from there, with the trunk's metrics so far;
  4. from the weights of train.init_from, where the config names them;
  5. from the seed.
"""

import contextlib
import dataclasses
import math
import time
from typing import Any

import jax
from jax.sharding import Mesh

from moe_jax import chips, errors, provenance
from moe_jax.config import fields
from moe_jax.config.counts import RunCounts
from moe_jax.data import windows
from moe_jax.data.store import Store
from moe_jax.model.routers import registry
from moe_jax.sweep.heartbeat import Phase
from moe_jax.sweep.manifest import StoreIdentity
from moe_jax.sweep.result import Result, Status, TrunkResult
from moe_jax.sweep.run_record import RunRecord, RunStore
from moe_jax.text import number
from moe_jax.training import attempts, held_out, initial_weights, processes, sinks
from moe_jax.training.attempts import Claim
from moe_jax.training.checkpoint import Checkpoints
from moe_jax.training.goal import Goal
from moe_jax.training.metrics import Recorder
from moe_jax.training.options import Options
from moe_jax.training.step import Trainer, TrainState, recent_means


class NotFiniteError(Exception):
    """The loss or the gradient of a step is not finite."""


class Run:
    """A goal that is being trained. `sharing` runs share the mesh, each with its part of the devices."""

    def __init__(
        self, goal: Goal, claim: Claim, store: Store, identity: StoreIdentity, mesh: Mesh, options: Options,
        sharing: int = 1,
    ):  # fmt: skip
        self.goal, self.claim, self.options = goal, claim, options
        self.name, self.config, self.folder = goal.name, goal.planned.config, goal.folder
        self.store, self.identity, self.mesh = store, identity, mesh
        self.branched_at = 0  # the step where the run left its trunk
        self.result: Result | TrunkResult | None = None  # once it has ended
        self._saved_step: int | None = None
        self._writes = processes.is_first()
        self._held_out = windows.held_out(self.config, store)
        self._others_held_out = windows.other_held_out(self.config, store)
        self._dispatch = registry.evaluation_dispatch(self.config)
        self.recorder = Recorder(
            goal.folder, steps=goal.last, batch_tokens=self.config.batch_tokens, attempt=claim.number,
            writes=self._writes, flush_seconds=options.heartbeat_seconds,
            mfu_of_rate=_mfu_of_rate(goal.planned.counts, mesh, sharing),
            check_owner=lambda: goal.folder.check_newest(claim.number, claim.token),
        )  # fmt: skip
        self.times = self.recorder.times
        self.checkpoints = Checkpoints(
            goal.folder.checkpoints, goal.planned.config_hash, self.config.checkpoint.keep, options.say, goal.always
        )

    def __enter__(self) -> "Run":
        return self

    def __exit__(self, *_: object) -> None:
        self.recorder.close()
        # A save that was under way is finished; its own error must not hide the one that ends the run.
        with contextlib.suppress(Exception):
            self.checkpoints.close()

    def begin(self, trainer: Trainer, at_most: int | None = None) -> tuple[TrainState, int]:
        """(state, step) from which the run goes on; of its own checkpoints, from none above `at_most`."""
        self.recorder.enter(Phase.RESTORING)
        with self.times.spent_on("checkpoint"):
            restored = self.checkpoints.restore(trainer.abstract_state, at_most)
            forgotten = self.checkpoints.forget_after(0 if restored is None else restored[1])
            branched = self._from_trunk(trainer) if restored is None else None
        self.branched_at = 0
        if restored is not None:
            state, step = restored
            self._saved_step = step
            self.branched_at = int(number(self.folder.saved(step).get("branched_at")) or 0)
            self.options.say(f"{self.name}: goes on at step {step} of {self.goal.last}")
        elif branched is not None:
            state, step = branched
            self.branched_at = step
            self.options.say(f"{self.name}: branches off {self.goal.trunk.name} at step {step} of {self.goal.last}")
        else:
            if forgotten:
                self.options.say(f"{self.name}: begins at its seed: none of its checkpoints can be used")
            with self.times.spent_on("compile"):
                self.recorder.enter(Phase.COMPILING)
                if self.config.train.init_from is None:
                    state, step = trainer.init(self.config.seed), 0
                else:
                    state, step = initial_weights.first_state(trainer, self.config, self.store, self.options.say), 0
        self._resume_log(step, None if branched is None else self.goal.trunk)
        return state, step

    def _from_trunk(self, trainer: Trainer) -> tuple[TrainState, int] | None:
        """(state, step) of the trunk's newest checkpoint that is on this run's path."""
        trunk = self.goal.trunk
        if trunk is None:
            return None
        attempts.refuse_another(trunk, self.goal.trunk_hash)
        keep, say = self.config.checkpoint.keep, self.options.say
        checkpoints = Checkpoints(trunk.checkpoints, self.goal.trunk_hash, keep, say)
        try:
            return checkpoints.restore(trainer.abstract_state, at_most=self.config.decay_start)
        finally:
            checkpoints.close()

    def _resume_log(self, step: int, trunk: Any) -> None:
        if self.recorder.resume(step, trunk):
            self.options.say(
                f"{(trunk or self.folder).metrics}: is damaged, some steps logged before {step} are lost; the training "
                "is not affected"
            )

    def open_sinks(self, step: int) -> None:
        """Logs to TensorBoard and Weights & Biases too, where the config asks for them."""
        if self.config.tensorboard and self._writes:
            self.recorder.add(sinks.TensorBoard(self.folder, step))
        if self.config.wandb is not None and self._writes:
            self.recorder.add(sinks.WeightsAndBiases(self.folder, self.config.wandb, fields.to_dict(self.config)))

    def due(self, done: int, saved_at: float) -> bool:
        """Whether a checkpoint is due after `done` updates, the last one having been saved at `saved_at`."""
        every = self.config.checkpoint
        if done in self.goal.always:
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

    def observe(self, step: int, values: dict[str, Any], log: bool = False) -> None:
        """Notes the metrics of a step, and logs them where that is due. Raises NotFiniteError."""
        self.recorder.check()
        if not (math.isfinite(values["loss"]) and math.isfinite(values["gradient_norm"])):
            raise NotFiniteError
        self.recorder.seen(step, values["loss"])
        if log or step % self.config.train.log_every_steps == 0 or step == self.config.steps - 1:
            self.recorder.log(step, values)
        self.options.on_step(self.name, self.recorder.heartbeat)

    def save(self, state: TrainState, step: int) -> None:
        if self._saved_step == step:
            return
        with self.times.spent_on("checkpoint"):
            self.recorder.flush(metrics=True)
            self.checkpoints.save(state, step, {"branched_at": self.branched_at})
            self._saved_step = step

    def evaluate(self, trainer: Trainer, state: TrainState) -> dict[str, float]:
        """The held-out loss; it also stands in the newest line of metrics.jsonl, that of the step before."""
        self.recorder.enter(Phase.EVALUATING)
        with self.times.spent_on("eval"):
            values = held_out.evaluate(trainer, state.weights, self._held_out, self._dispatch)
        self.recorder.log_evaluation({metric: values[metric] for metric in ("eval_loss", "bits_per_byte")})
        self.recorder.enter(Phase.TRAINING)
        return values

    def _evaluate_with_capacity(self, trainer: Trainer, state: TrainState) -> dict[str, float]:
        """The held-out loss and dropped share with the dispatch of training; {} where `evaluate` has that."""
        trained = None if self.config.moe is None else self.config.moe.dispatch
        if trained == self._dispatch:
            return {}
        with self.times.spent_on("eval"):
            values = held_out.evaluate(trainer, state.weights, self._held_out, trained)
        return {"eval_loss_capacity": values["eval_loss"], "eval_dropped_fraction": values["eval_dropped_fraction"]}

    def _evaluate_others(self, trainer: Trainer, state: TrainState, step: int) -> None:
        """The held-out losses on the stores of eval.stores, each in a file of its own."""
        for name, others in self._others_held_out.items():
            with self.times.spent_on("eval"):
                record = held_out.store_record(
                    trainer, state.weights, others, self._dispatch, run=self.name, of=name, step=step
                )
            if not all(map(math.isfinite, record.values.values())):
                self.options.say(f"{self.name}: its loss on {name} is not finite, so there is no evaluation on it")
            elif self._writes:
                self.folder.write_evaluation(record)

    def stop(self, step: int) -> errors.Stopped:
        """Ends the start after `step` updates, which are saved; gives what to raise."""
        self.checkpoints.close()
        self.recorder.enter(Phase.STOPPED)
        self.recorder.flush(metrics=True)
        # None may leave while another is still writing: the others would count it as dead.
        processes.together("stopped")
        return errors.Stopped(
            f"{self.name}: stopped at step {step} of {self.goal.last} and saved; the same command goes on there"
        )

    def finish(self, trainer: Trainer, state: TrainState) -> None:
        """The last checkpoint, the last evaluation, and the result: written once, after all else is on disk."""
        if self.goal.is_trunk:
            self._settle(Phase.DONE)
            self._end(TrunkResult(self.name, Status.DONE, self.goal.last))
            return
        steps, means = self.config.steps, recent_means(state)
        measured = {"train_loss": means["loss"], "dropped_fraction": means["dropped_fraction"]}
        if state.skip_step is not None:
            measured["skipped_steps"] = int(state.skip_step.skipped)
        self.save(state, steps)
        evaluated = self.evaluate(trainer, state)
        self.recorder.enter(Phase.EVALUATING)
        evaluated |= self._evaluate_with_capacity(trainer, state)
        if not all(map(math.isfinite, evaluated.values())):
            self.diverge(steps, **measured)
            return
        self._evaluate_others(trainer, state, steps)
        self._settle(Phase.DONE)
        self._end(self._result(Status.DONE, steps, **measured, **evaluated))

    def diverge(self, step: int, **measured: Any) -> None:
        """Ends the run at `step`, whose loss is not finite, with a result without an evaluation."""
        self._settle(Phase.DIVERGED)
        if self.goal.is_trunk:
            self._end(TrunkResult(self.name, Status.DIVERGED, step))
            return
        saved = self.checkpoints.steps() or ([self.branched_at] if self.branched_at else [None])
        where = {"diverged_step": step, "last_good_checkpoint": saved[-1]}
        self._end(self._result(Status.DIVERGED, step, **measured, **where))

    def _settle(self, phase: Phase) -> None:
        """Waits until all but the result is on disk."""
        with self.times.spent_on("checkpoint"):
            self.checkpoints.close()
        self.recorder.enter(phase)
        self.recorder.flush(metrics=True)

    def _result(self, status: Status, steps: int, **measured: Any) -> Result:
        heartbeat, times, devices = self.recorder.heartbeat, self.times.seconds, provenance.devices()
        return Result(
            name=self.name,
            status=status,
            steps=steps,
            tokens=steps * self.config.batch_tokens,
            own_tokens=(steps - self.branched_at) * self.config.batch_tokens,
            trunk=self.goal.trunk.name if self.branched_at else None,
            max_over_mean_load=self.recorder.last("max_over_mean_load"),
            config_hash=self.goal.planned.config_hash,
            attempts=self.claim.number,
            wall_seconds=sum(times.values()),
            times=times,
            tokens_per_second=heartbeat.tokens_per_second,
            mfu=heartbeat.mfu,
            git_commit=provenance.git_commit(),
            device=devices["device"],
            n_devices=devices["n_devices"],
            **measured,
        )

    def _end(self, result: Result | TrunkResult) -> None:
        if self._writes and isinstance(result, Result):
            self.folder.write_result(result)
        processes.together("finished")  # as in stop
        self.result = result
        self.claim.end_with(result)

    def write_run_record(self) -> None:
        """Writes run.json, before the first step."""
        if not self._writes:
            return
        info = self.store.info
        known = dataclasses.asdict(self.identity) | {"train_tokens": info.tokens["train"]}
        store = RunStore(**known, vocabulary=info.vocabulary, end_of_document=info.end_of_document)
        record = RunRecord(
            name=self.name,
            began=time.time(),
            attempt=self.claim.number,
            config=self.config,
            config_hash=self.goal.planned.config_hash,
            counts=self.goal.planned.counts,
            store=store,
            mesh=dict(self.mesh.shape),
            **provenance.devices(),
            git_commit=provenance.git_commit(),
            versions=provenance.versions(),
            rules=self.goal.planned.rules,
        )
        self.folder.write_run_record(record)


def _mfu_of_rate(counts: RunCounts, mesh: Mesh, sharing: int) -> float | None:
    """MFU of one token a second: the share of the devices' published bf16 peak that train_flops makes, of as many
    devices as each of `sharing` runs has; None where no peak is known."""
    peak = chips.peak_flops(mesh.devices.flat[0].device_kind)
    return None if peak is None else counts.train_flops / counts.tokens / (peak * mesh.devices.size / sharing)
