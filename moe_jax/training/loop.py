"""How a run goes: one loop for a run, a trunk and a pack."""

import contextlib
import functools
import time
from collections.abc import Sequence

from moe_jax.data.prefetch import Prefetcher
from moe_jax.data.store import Store
from moe_jax.sweep.heartbeat import Phase
from moe_jax.sweep.manifest import StoreIdentity
from moe_jax.sweep.result import Result, TrunkResult
from moe_jax.training import processes, profiling
from moe_jax.training.goal import Goal, result_of
from moe_jax.training.group import claimed
from moe_jax.training.options import Options
from moe_jax.training.program import Programs
from moe_jax.training.stopping import StopRequest


def train(
    goals: Sequence[Goal], store: Store, identity: StoreIdentity, options: Options, programs: Programs | None = None
) -> list[Result | TrunkResult]:
    """Trains each goal to its end, from wherever it is, and gives the results, which are then on disk. Several goals,
    of runs that differ in seed and learning rate alone, train together in one program, which may be in `programs`.

    Raises Stopped (saved; start again), UserError for what cannot be trained, OSError for a full disk and the like. A
    loss that is not finite is a result too, with `status` "diverged"."""
    results = [result_of(goal, options.say) for goal in goals]
    if None not in results:
        return results
    with claimed(goals, store, identity, options) as group:
        if not group.open:
            return group.results
        with StopRequest(options.stop_with_parent) as stop:
            program = group.compile(programs or Programs())
            state, first = group.begin(program)

            config, last = group.configs[0], group.last
            schedule = program.schedule(group.configs)
            put = functools.partial(program.put, group.batches)
            waiting = functools.partial(group.spending, "data")
            tracer = profiling.Tracer(config.profile, goals[0].folder.path / "profile", processes.is_first())
            pending, saved_at = None, time.monotonic()
            with group.spending("train"), Prefetcher(put, first, last, waiting) as batches, tracer:
                for step, batch in batches:
                    tracer.before(step, state)
                    with group.spending("compile") if step == first else contextlib.nullcontext():
                        state, metrics = program.step(state, batch, schedule)
                    if step == first:
                        group.enter(Phase.TRAINING)
                    # The step is launched; the metrics of the one before are read: the device never waits for the host.
                    if pending is not None:
                        group.observe(pending[0], program.values_of(pending[1]))
                    if not group.open:
                        break  # all have diverged
                    pending, done = (step, metrics), step + 1
                    asked = stop.asked(done)
                    evaluate = config.eval.every_steps is not None and done % config.eval.every_steps == 0
                    save = asked or group.due(done, saved_at)
                    if done < config.steps and (evaluate or save):
                        group.observe(step, program.values_of(metrics), log=evaluate)  # only what is finite is saved
                        pending = None
                        group.keep(program, state, done, evaluate=evaluate, save=save)
                        saved_at = time.monotonic() if save else saved_at
                    if not group.open:
                        break
                    if asked and done < last:
                        group.stop(done)
                if pending is not None and group.open:
                    group.observe(pending[0], program.values_of(pending[1]))
            group.finish(program, state)
        return group.results
