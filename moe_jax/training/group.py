"""The runs that train together: one run or trunk alone, or a pack of runs of one shape.

In every file each is its own run, whose checkpoints can be restored alone. One that diverges gets its result; its place
goes on with numbers that nobody reads, and the others do not notice.
"""

import contextlib
from collections.abc import Iterator, Sequence
from typing import Any

import jax

from moe_jax.config.schema import Config
from moe_jax.data import windows
from moe_jax.data.batches import Batches
from moe_jax.data.store import Store
from moe_jax.errors import UserError
from moe_jax.model import sharding
from moe_jax.model.flash_attention import choose
from moe_jax.sweep.heartbeat import Phase
from moe_jax.sweep.manifest import StoreIdentity
from moe_jax.sweep.result import Result, TrunkResult
from moe_jax.training import attempts
from moe_jax.training.goal import Goal, result_of
from moe_jax.training.options import Options
from moe_jax.training.program import Program, Programs
from moe_jax.training.run import NotFiniteError, Run
from moe_jax.training.step import TrainState


class Group:
    """Runs that train together, each at its place; None at the place of a run that had its result before. A run that is
    done keeps its place, so that the program stays the same."""

    def __init__(
        self, goals: Sequence[Goal], results: Sequence[Result | TrunkResult | None], runs: Sequence[Run | None],
        batches: Sequence[Batches], options: Options,
    ):  # fmt: skip
        self.goals, self.runs, self.batches, self._results, self._options = goals, runs, batches, results, options
        self.configs: list[Config] = [goal.planned.config for goal in goals]
        self.last = goals[0].last

    @property
    def open(self) -> list[tuple[int, Run]]:
        """(place, run) of those without a result."""
        return [(i, run) for i, run in enumerate(self.runs) if run is not None and run.result is None]

    @property
    def results(self) -> list[Result | TrunkResult]:
        """The results, once all have ended."""
        return [old if run is None else run.result for old, run in zip(self._results, self.runs, strict=True)]

    @contextlib.contextmanager
    def spending(self, what: str) -> Iterator[None]:
        """Counts the time of the block for every run."""
        with contextlib.ExitStack() as stack:
            for _, run in self.open:
                stack.enter_context(run.times.spent_on(what))
            yield

    def compile(self, programs: Programs) -> Program:
        """The program of the group; the step itself is compiled when it first runs."""
        (_, run), goal, n = self.open[0], self.goals[0], len(self.goals)
        with self.spending("compile"):
            vocab_size, end_of_document = goal.planned.counts.vocab_size, run.store.info.end_of_document
            program = programs.program(run.config, vocab_size, run.mesh, end_of_document, n)
        self._options.say(program.trainer.parameter_table())
        self._options.say(_attention(run.config, run.mesh))
        return program

    def begin(self, program: Program) -> tuple[TrainState, int]:
        """(state of all, step) from which they go on: the newest step that all of them have saved."""
        trainer, at_most = program.trainer, self._newest_common()
        while True:
            begun = {i: run.begin(trainer, at_most) for i, run in self.open}
            steps = {step for _, step in begun.values()}
            if len(steps) == 1:
                break
            at_most = min(steps)  # a checkpoint was damaged
        (first,) = steps
        for _, run in self.open:
            run.open_sinks(first)
            run.write_run_record()
        states = [begun[i][0] if i in begun else trainer.init(c.seed) for i, c in enumerate(self.configs)]
        return program.join(states), first

    def _newest_common(self) -> int | None:
        """The newest step that all have saved, 0 where there is none; None, no limit, for one run alone."""
        if len(self.goals) == 1:
            return None
        saved = {run.name: run.checkpoints.steps() for _, run in self.open}
        newest = max(set.intersection(*map(set, saved.values())), default=0)
        if ahead := [name for name, steps in saved.items() if max(steps, default=0) > newest]:
            self._options.say(
                f"{', '.join(ahead)}: had saved more, and goes back to step {newest}, the newest that all runs of the "
                "pack have"
            )
        return newest

    def enter(self, phase: Phase) -> None:
        for _, run in self.open:
            run.recorder.enter(phase)

    def due(self, done: int, saved_at: float) -> bool:
        """Whether a checkpoint is due after `done` updates; all are saved at the same steps."""
        return any(run.due(done, saved_at) for _, run in self.open[:1])

    def observe(self, step: int, values: Sequence[dict[str, Any]], log: bool = False) -> None:
        """Notes each run's metrics of a step; a run whose loss is not finite ends here."""
        for i, run in self.open:
            try:
                run.observe(step, values[i], log)
            except NotFiniteError:
                run.diverge(step)

    def keep(self, program: Program, state: TrainState, done: int, *, evaluate: bool, save: bool) -> None:
        """Evaluates and saves each run after `done` updates. Evaluates first: a resumed run starts after this step and
        would not come back to it."""
        if save:
            self._wait()
        for i, run in self.open:
            one = program.state_of(state, i)
            if evaluate:
                run.evaluate(program.trainer, one)
            if save:
                run.save(one, done)

    def _wait(self) -> None:
        """Waits until all runs have the step that was saved last. Only then may a run save the next step and remove the
        one before: else a kill could leave the runs without a step in common."""
        with self.spending("checkpoint"):
            for _, run in self.open:
                run.checkpoints.wait()

    def stop(self, done: int) -> None:
        """Ends every run after `done` updates, which are saved. Raises Stopped."""
        stopped = [run.stop(done) for _, run in self.open]
        raise stopped[0]

    def finish(self, program: Program, state: TrainState) -> None:
        """Brings every run that is still open to its result."""
        self._wait()
        for i, run in self.open:
            run.finish(program.trainer, program.state_of(state, i))


@contextlib.contextmanager
def claimed(goals: Sequence[Goal], store: Store, identity: StoreIdentity, options: Options) -> Iterator[Group]:
    """The goals as a group that this process alone trains; each start is noted in its run's folder, and how it ended.

    Raises UserError for what cannot be trained, before any file is written."""
    config, n = goals[0].planned.config, len(goals)
    if n > 1 and jax.process_count() > 1:
        raise UserError("config.sweep.pack: packed runs are trained by one process; use 1 on several hosts")
    by_seed = {goal.planned.config.seed: windows.training_batches(goal.planned.config, store) for goal in goals}
    if n == 1:
        mesh = sharding.make_mesh(config.mesh, options.devices)
        sharding.check_fit(config, mesh)
    else:
        mesh = sharding.make_packed_mesh(config, options.devices, n)
    _attention(config, mesh)
    with contextlib.ExitStack() as stack:
        for goal in goals:
            stack.enter_context(attempts.locked(goal.folder))
        results = [result_of(goal, options.say) for goal in goals]  # another process may have come first

        def start(goal: Goal) -> Run:
            claim = stack.enter_context(attempts.claimed(goal.folder))
            return stack.enter_context(Run(goal, claim, store, identity, mesh, options, sharing=n))

        runs = [start(goal) if result is None else None for goal, result in zip(goals, results, strict=True)]
        yield Group(goals, results, runs, [by_seed[goal.planned.config.seed] for goal in goals], options)


def _attention(config: Config, mesh: jax.sharding.Mesh) -> str:
    """What computes attention on these devices, and why, as a sentence. Raises UserError where it cannot be what
    model.attention says."""
    device, data = mesh.devices.flat[0], config.data
    by, why = choose(config.model, device, data.sequence_length, data.mask_documents)
    return f"attention by {by}: {why}"
