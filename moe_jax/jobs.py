"""A sweep as jobs: what is started as one process, in which order, and what waits for what. Every launcher asks here.

With schedule `wsd`, runs that differ in D alone have all steps in common up to where the first of their rates begins to
fall. These are trained once, as their trunk, W/trunks/<name>/, which keeps a checkpoint at each step where a branch
leaves (`Config.decay_start`); a branch starts from there and equals, to the bit, the same run trained alone. A trunk
only goes forward: a branch whose point it has passed without saving it, because the grid was extended later, starts
from the newest checkpoint before it, or from its seed.

With `sweep.pack` above 1, so many runs at most that differ in seed and learning rate alone are one job, a pack
(packing.py), unless they have a trunk.
"""

import dataclasses
import hashlib
import json
import time
from collections.abc import Sequence

from moe_jax import config_fields, errors
from moe_jax.errors import UserError
from moe_jax.manifest import PlannedRun
from moe_jax.naming import group_name, trunk_name
from moe_jax.rundir import RunDir
from moe_jax.runstate import RunState, state_of
from moe_jax.tables import number
from moe_jax.workdir import Workdir


@dataclasses.dataclass(frozen=True)
class Trunk:
    """The steps that runs have in common which differ in D alone. One run by itself has no trunk, nor have runs whose
    rates fall from the first step on."""

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
        """The last point that a branch without a result needs; 0 where all have one."""
        open_runs = [run for run in self.branches if not workdir.run_dir(run.name).result_path.exists()]
        return max((run.config.decay_start for run in open_runs), default=0)


@dataclasses.dataclass(frozen=True)
class Job:
    """One process, `moe-jax train --workdir=W` with `flags`; its exit code is that of `train`, and started again it
    goes on where it was."""

    name: str  # the run's or the trunk's; unique in the sweep
    flags: tuple[str, ...]
    runs: tuple[PlannedRun, ...]  # those that have a result when it is done; none where it trains a trunk alone
    first_step: int  # what it trains itself: updates first_step … last_step − 1 (and the branches', if it has them)
    last_step: int
    tokens: int  # that it trains itself, from its beginning
    train_flops: float  # of these tokens
    trunk: Trunk | None  # that it trains, or that it branches from
    waits_for: str | None  # the trunk's job. It may start when that has saved `first_step`, see `is_ready`

    @property
    def is_trunk(self) -> bool:
        return self.trunk is not None and self.name == self.trunk.name

    def folders(self, workdir: Workdir) -> list[RunDir]:
        """Where its heartbeats and attempts are: the trunk's folder, or those of its runs. Its log is in the first."""
        return [workdir.trunk_dir(self.name)] if self.is_trunk else [workdir.run_dir(run.name) for run in self.runs]


def trunks(runs: Sequence[PlannedRun]) -> list[Trunk]:
    """The trunks of a sweep's runs, in the order of their first branches. Raises UserError where names clash."""
    groups: dict[str, list[PlannedRun]] = {}
    for run in runs:
        if run.config.optim.schedule == "wsd":
            groups.setdefault(_common(run), []).append(run)
    found: dict[str, Trunk] = {}
    taken = {run.name for run in runs}
    for branches in groups.values():
        if len(branches) == 1 or not any(run.config.decay_start for run in branches):
            continue
        name = trunk_name(branches[0].name, branches[0].overrides)  # the first stays so in an extended grid
        branches.sort(key=lambda run: run.config.train.tokens)
        if name in found or name in taken:
            raise UserError(
                f"the trunk of {', '.join(r.name for r in branches)} would be called {name}, as another trunk or run "
                "is; set 'name' in the cells of one of them"
            )
        found[name] = Trunk(name, tuple(branches))
    return list(found.values())


def _common(run: PlannedRun) -> str:
    """What the runs of a trunk have in common, all but D: 16 hex digits."""
    return _hashed(run, ("train", "tokens"))


def _hashed(run: PlannedRun, *without: tuple[str, ...]) -> str:
    """16 hex digits over the run's config but for some fields."""
    values = config_fields.to_dict(run.config)
    for *groups, field in without:
        group = values
        for name in groups:
            group = group[name]
        del group[field]
    values["vocabulary_size"] = run.counts["vocabulary_size"]
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:16]


def trunk_of(runs: Sequence[PlannedRun], name: str) -> Trunk | None:
    """The trunk that the run of this name branches from, if it has one."""
    return next((trunk for trunk in trunks(runs) if any(run.name == name for run in trunk.branches)), None)


def trunk_called(runs: Sequence[PlannedRun], name: str) -> Trunk:
    """Raises UserError where the sweep has no such trunk."""
    found = {trunk.name: trunk for trunk in trunks(runs)}
    if name not in found:
        has = f"it has {', '.join([*found][:4])}" if found else "it has none (schedule wsd and runs that differ in D)"
        raise UserError(f"--trunk={name}: the sweep has no such trunk; {has}")
    return found[name]


def packs(runs: Sequence[PlannedRun]) -> dict[str, list[PlannedRun]]:
    """name -> runs that train together, in the order of their first ones."""
    branches = {run.name for trunk in trunks(runs) for run in trunk.branches}
    alike: dict[str, list[PlannedRun]] = {}
    for run in runs:
        if run.config.sweep.pack > 1 and run.name not in branches:
            alike.setdefault(_hashed(run, ("seed",), ("optim", "learning_rate")), []).append(run)
    found: dict[str, list[PlannedRun]] = {}
    for members in alike.values():
        size = members[0].config.sweep.pack
        for i in range(0, len(members), size):
            if len(together := members[i : i + size]) > 1:
                found[group_name("pack", together[0].name)] = together
    return found


def pack_called(runs: Sequence[PlannedRun], name: str) -> list[PlannedRun]:
    """Raises UserError where the sweep has no such pack."""
    found = packs(runs)
    if name not in found:
        has = f"it has {', '.join([*found][:4])}" if found else "it has none (sweep.pack and runs of one shape)"
        raise UserError(f"--pack={name}: the sweep has no such pack; {has}")
    return found[name]


def jobs(runs: Sequence[PlannedRun], *, apart: bool = True, packed: bool = True) -> list[Job]:
    """The jobs of a sweep, in an order in which each stands behind what it waits for.

    `apart`: trunks and branches are jobs of their own; the branches of a trunk may run side by side, each as soon as
    its point is saved. Else one job trains a trunk and then its branches one after the other, and no job waits for
    another: for launchers that cannot make one wait. Without `packed`, each run of a pack has a job of its own, as
    those have who look at one run at a time."""
    by_run = {run.name: trunk for trunk in trunks(runs) for run in trunk.branches}
    pack_of = {run.name: (name, members) for name, members in packs(runs).items() for run in members}
    out: dict[str, Job] = {}
    for run in runs:
        trunk = by_run.get(run.name)
        if packed and run.name in pack_of:
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
    """A job of `jobs(…, apart=False)` without those of its runs that have a result: what is to be trained, at most."""
    runs = tuple(run for run in job.runs if run.name in open_runs)
    if job.is_trunk:
        return _trunk_job(Trunk(job.name, runs), with_branches=True)
    return _pack_job(job.name, runs) if len(runs) > 1 else run_job(runs[0], job.trunk)


def _pack_job(name: str, runs: Sequence[PlannedRun]) -> Job:
    steps = runs[0].config.steps
    tokens, flops = sum(run.counts["tokens"] for run in runs), sum(_flops(run, steps) for run in runs)
    return Job(name, (f"--pack={name}",), tuple(runs), 0, steps, tokens, flops, None, None)


def _flops(run: PlannedRun, steps: int) -> float:
    return run.counts["train_flops"] * steps / run.config.steps


def trunk_state(trunk: Trunk, workdir: Workdir, now: float) -> RunState:
    """As runstate.state_of: `done` when all is saved that its branches need."""
    folder = workdir.trunk_dir(trunk.name)
    seen = dataclasses.replace(state_of(trunk.planned, folder, now), steps=trunk.points[-1])
    if max(folder.saved_steps(), default=0) >= trunk.end(workdir):
        return dataclasses.replace(seen, state="done")
    if seen.state == "failed":
        code = number(folder.attempts()[-1].get("exit_code"))
        # It had reached its end, and the grid was extended since; or it can go no further.
        word = {errors.DONE: "queued", errors.DIVERGED: "diverged"}.get(code, "failed")
        return dataclasses.replace(seen, state=word)
    return seen


def is_ready(job: Job, workdir: Workdir) -> bool:
    """Whether what it waits for is there: its trunk has passed its point. One that diverged, or has nothing left to do
    for runs without a result (this one's may be damaged), goes no further: its branches start from what it has."""
    if job.waits_for is None:
        return True
    if max(workdir.trunk_dir(job.waits_for).saved_steps(), default=0) >= job.first_step:
        return True
    return trunk_state(job.trunk, workdir, time.time()).state in ("diverged", "done")


@dataclasses.dataclass(frozen=True)
class Saving:
    """What trunks save: tokens and FLOPs that a sweep trains, and what its runs alone would."""

    trunks: int
    tokens: int
    tokens_alone: int
    train_flops: float
    train_flops_alone: float


def saving(runs: Sequence[PlannedRun]) -> Saving:
    planned = jobs(runs)
    return Saving(
        sum(job.is_trunk for job in planned),
        sum(job.tokens for job in planned),
        sum(run.counts["tokens"] for run in runs),
        sum(job.train_flops for job in planned),
        sum(run.counts["train_flops"] for run in runs),
    )
