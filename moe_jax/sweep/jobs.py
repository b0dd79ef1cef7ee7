"""A sweep as jobs: which runs are trained together, in which order, and what they wait for. All launchers use it.

With schedule `wsd`, runs whose results differ in D alone have all steps in common up to where the first of their rates
begins to fall. These steps are trained once, as the runs' trunk, W/trunks/<name>/, which keeps a checkpoint at each
step where a branch leaves (`Config.decay_start`). A branch starts from there and, on the trunk's mesh, equals to the
bit the same run trained alone. Branches may have meshes and checkpoint settings of their own; the trunk has its longest
branch's. A trunk only goes forward: a branch whose point it has passed without saving it, because the grid was extended
later, starts from the newest checkpoint before it, or from its seed.

With `sweep.pack` above 1, up to that many runs that differ in seed and learning rate alone are one job, a pack
(training/program.py), unless they have a trunk.
"""

import dataclasses
import time
from collections.abc import Container, Sequence

from moe_jax import errors
from moe_jax.config import identity
from moe_jax.config.names import group_name, trunk_name
from moe_jax.errors import UserError
from moe_jax.sweep.manifest import PlannedRun
from moe_jax.sweep.run_state import RunState, State, state_of
from moe_jax.sweep.rundir import RunDir
from moe_jax.sweep.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Trunk:
    """The steps that the runs of a grid which differ in D alone have in common. A single run has no trunk; neither have
    runs whose rates fall from the first step on."""

    name: str
    branches: tuple[PlannedRun, ...]  # the shortest first

    @property
    def points(self) -> tuple[int, ...]:
        """The steps where its branches leave, in order."""
        return tuple(sorted({run.config.decay_start for run in self.branches}))

    @property
    def planned(self) -> PlannedRun:
        """The run whose path the trunk is: its longest branch's, which is trained up to `points[-1]` only."""
        return dataclasses.replace(self.branches[-1], name=self.name, overrides={})

    def end(self, workdir: Workdir) -> int:
        """The last point that a branch without a result needs; 0 where all branches have results."""
        open_runs = [run for run in self.branches if not workdir.run_dir(run.name).result_path.exists()]
        return max((run.config.decay_start for run in open_runs), default=0)


@dataclasses.dataclass(frozen=True)
class Job:
    """What `moe-jax train --workdir=W` with `flags` trains. Started again, it goes on where it was."""

    name: str  # the run's, the trunk's or the pack's; unique in the sweep
    flags: tuple[str, ...]
    runs: tuple[PlannedRun, ...]  # those that have results when the job is done; none where it trains a trunk alone
    first_step: int  # it trains updates first_step … last_step − 1 itself (and those of its trunk's branches)
    last_step: int
    tokens: int  # that it trains itself
    train_flops: float  # of these tokens
    trunk: Trunk | None  # that it trains, or that its run branches from
    waits_for: str | None  # the trunk's job, which must have saved `first_step` before this one starts (`is_ready`)

    @property
    def is_trunk(self) -> bool:
        return self.trunk is not None and self.name == self.trunk.name

    def folders(self, workdir: Workdir) -> list[RunDir]:
        """The folders of its heartbeats and attempts: the trunk's, or its runs'. Its log is in the first."""
        return [workdir.trunk_dir(self.name)] if self.is_trunk else [workdir.run_dir(run.name) for run in self.runs]


def trunks(runs: Sequence[PlannedRun]) -> list[Trunk]:
    """The trunks of a sweep's runs, in the order of their first branches. Raises UserError where names clash."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        if run.config.optim.schedule == "wsd":
            groups.setdefault(identity.trunk_key(run.config, run.counts.vocab_size), []).append(run)
    found: dict[str, Trunk] = {}
    taken = {run.name for run in runs}
    for branches in groups.values():
        if len(branches) == 1 or not any(run.config.decay_start for run in branches):
            continue
        name = trunk_name(branches[0].name, branches[0].config)  # the first stays so in an extended grid
        branches.sort(key=lambda run: run.config.train.tokens)
        if name in found or name in taken:
            raise UserError(
                f"the trunk of {', '.join(r.name for r in branches)} would be called {name}, as another trunk or run "
                "is; give the cells of one of them names of their own"
            )
        found[name] = Trunk(name, tuple(branches))
    return list(found.values())


def trunk_of(runs: Sequence[PlannedRun], name: str) -> Trunk | None:
    """The trunk that the run of this name branches from, if it has one."""
    return next((trunk for trunk in trunks(runs) if any(run.name == name for run in trunk.branches)), None)


def trunk_called(runs: Sequence[PlannedRun], name: str) -> Trunk:
    """The trunk of this name. Raises UserError where the sweep has none."""
    found = {trunk.name: trunk for trunk in trunks(runs)}
    if name not in found:
        has = f"it has {', '.join([*found][:4])}" if found else "it has none (schedule wsd and runs that differ in D)"
        raise UserError(f"--trunk={name}: the sweep has no such trunk; {has}")
    return found[name]


def packs(runs: Sequence[PlannedRun]) -> dict[str, list[PlannedRun]]:
    """name -> the runs of a pack, which train together; in the order of their first runs."""
    return _packs(runs, {run.name for trunk in trunks(runs) for run in trunk.branches})


def _packs(runs: Sequence[PlannedRun], branches: Container[str]) -> dict[str, list[PlannedRun]]:
    """As `packs`, where the names of the trunks' branches are known."""
    alike: dict[str, list[PlannedRun]] = {}
    for run in runs:
        if run.config.sweep.pack > 1 and run.name not in branches:
            alike.setdefault(identity.pack_key(run.config, run.counts.vocab_size), []).append(run)
    found: dict[str, list[PlannedRun]] = {}
    for members in alike.values():
        size = members[0].config.sweep.pack
        for i in range(0, len(members), size):
            if len(together := members[i : i + size]) > 1:
                found[group_name("pack", together[0].name)] = together
    return found


def pack_called(runs: Sequence[PlannedRun], name: str) -> list[PlannedRun]:
    """The runs of the pack of this name. Raises UserError where the sweep has none."""
    found = packs(runs)
    if name not in found:
        has = f"it has {', '.join([*found][:4])}" if found else "it has none (sweep.pack and runs of one shape)"
        raise UserError(f"--pack={name}: the sweep has no such pack; {has}")
    return found[name]


def jobs_of(runs: Sequence[PlannedRun], *, apart: bool = True, packed: bool = True) -> list[Job]:
    """The jobs of a sweep; each stands behind the one it waits for.

    With `apart`, a trunk and its branches are separate jobs, and branches may run side by side, each as soon as its
    point is saved. Without it, one job trains a trunk and then its branches one after the other, for launchers that
    cannot make one job wait for another. Without `packed`, each run of a pack has a job of its own, for callers that
    look at one run at a time."""
    by_run = {run.name: trunk for trunk in trunks(runs) for run in trunk.branches}
    together = _packs(runs, by_run) if packed else {}
    pack_of = {run.name: (name, members) for name, members in together.items() for run in members}
    out: dict[str, Job] = {}
    for run in runs:
        trunk = by_run.get(run.name)
        if run.name in pack_of:
            name, members = pack_of[run.name]
            out[name] = _pack_job(name, members)
            continue
        if trunk is not None and trunk.name not in out:
            out[trunk.name] = _trunk_job(trunk, with_branches=not apart)
        if trunk is None or apart:
            out[run.name] = run_job(run, trunk)
    return list(out.values())


def _trunk_job(trunk: Trunk, *, with_branches: bool) -> Job:
    planned, end = trunk.planned, trunk.points[-1]
    own = end + (sum(r.config.steps - r.config.decay_start for r in trunk.branches) if with_branches else 0)
    flags = (f"--trunk={trunk.name}", *(["--branches"] if with_branches else []))
    return Job(
        trunk.name, flags, trunk.branches if with_branches else (), 0, end, own * planned.config.batch_tokens,
        _flops(planned, own), trunk, None,
    )  # fmt: skip


def run_job(run: PlannedRun, trunk: Trunk | None) -> Job:
    """The job of one run, with the trunk that it branches from."""
    first, last = 0 if trunk is None else run.config.decay_start, run.config.steps
    return Job(
        run.name, (f"--run={run.name}",), (run,), first, last, (last - first) * run.config.batch_tokens,
        _flops(run, last - first), trunk, None if trunk is None else trunk.name,
    )  # fmt: skip


def left_of(job: Job, open_runs: Sequence[str]) -> Job:
    """A job of `jobs_of(…, apart=False)` without the runs that have results."""
    runs = tuple(run for run in job.runs if run.name in open_runs)
    if job.is_trunk:
        return _trunk_job(Trunk(job.name, runs), with_branches=True)
    return _pack_job(job.name, runs) if len(runs) > 1 else run_job(runs[0], job.trunk)


def _pack_job(name: str, runs: Sequence[PlannedRun]) -> Job:
    steps = runs[0].config.steps
    tokens, flops = sum(run.counts.tokens for run in runs), sum(_flops(run, steps) for run in runs)
    return Job(name, (f"--pack={name}",), tuple(runs), 0, steps, tokens, flops, None, None)


def _flops(run: PlannedRun, steps: int) -> float:
    return run.counts.train_flops * steps / run.config.steps


def trunk_state(trunk: Trunk, workdir: Workdir, now: float) -> RunState:
    """The state of a trunk, from its folder, as run_state.state_of gives it; `done` when all that its branches need is
    saved."""
    folder = workdir.trunk_dir(trunk.name)
    seen = dataclasses.replace(state_of(trunk.planned, folder, now), steps=trunk.points[-1])
    if max(folder.saved_steps(), default=0) >= trunk.end(workdir):
        return dataclasses.replace(seen, state=State.DONE)
    if seen.state == State.FAILED:
        code = folder.attempts()[-1].exit_code
        # Done: it had reached its end before the grid was extended. Diverged: it can go no further.
        state = {errors.DONE: State.QUEUED, errors.DIVERGED: State.DIVERGED}.get(code, State.FAILED)
        return dataclasses.replace(seen, state=state)
    return seen


def is_ready(job: Job, workdir: Workdir) -> bool:
    """Whether a job may start: it waits for no trunk, or its trunk has passed its point.

    A trunk that diverged, or that no run without a result needs (this job's may be damaged), goes no further: its
    branches start from what it has."""
    if job.waits_for is None:
        return True
    if max(workdir.trunk_dir(job.waits_for).saved_steps(), default=0) >= job.first_step:
        return True
    return trunk_state(job.trunk, workdir, time.time()).state in (State.DIVERGED, State.DONE)


@dataclasses.dataclass(frozen=True)
class Saving:
    """What trunks save: the tokens and FLOPs of a sweep with them, and of its runs trained alone."""

    trunks: int
    tokens: int
    tokens_alone: int
    train_flops: float
    train_flops_alone: float


def saving(runs: Sequence[PlannedRun]) -> Saving:
    """What the trunks of a sweep save: the sums over its jobs and over its runs."""
    planned = jobs_of(runs)
    return Saving(
        sum(job.is_trunk for job in planned),
        sum(job.tokens for job in planned),
        sum(run.counts.tokens for run in runs),
        sum(job.train_flops for job in planned),
        sum(run.counts.train_flops for run in runs),
    )
