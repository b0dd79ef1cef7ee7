"""What is to be trained: a run up to its result, or a trunk up to the last step where a branch leaves it."""

import dataclasses
from collections.abc import Callable

from moe_jax.config import identity
from moe_jax.sweep.jobs import Trunk
from moe_jax.sweep.manifest import PlannedRun, StoreIdentity
from moe_jax.sweep.result import Result, Status, TrunkResult
from moe_jax.sweep.rundir import RunDir
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import attempts, processes


@dataclasses.dataclass(frozen=True)
class Goal:
    """A run or a trunk to be trained. `planned.config_hash` identifies the folder's content: for a trunk, its trunk
    hash."""

    planned: PlannedRun
    folder: RunDir
    last: int  # updates to train up to; a run's are all of its steps
    always: frozenset[int] = frozenset()  # steps whose checkpoint is made in any case, and kept: where branches leave
    is_trunk: bool = False  # a trunk leaves checkpoints and no result
    trunk: RunDir | None = None  # the trunk whose checkpoints the run may begin from
    trunk_hash: str | None = None  # of that trunk

    @property
    def name(self) -> str:
        return self.planned.name


def run_goal(planned: PlannedRun, workdir: Workdir, store: StoreIdentity, trunk: Trunk | None = None) -> Goal:
    """The whole of a run; with `trunk`, from that trunk's checkpoints where it has none of its own."""
    folder, last = workdir.run_dir(planned.name), planned.config.steps
    if trunk is None:
        return Goal(planned, folder, last)
    return Goal(planned, folder, last, trunk=workdir.trunk_dir(trunk.name), trunk_hash=_trunk_hash(planned, store))


def trunk_goal(trunk: Trunk, workdir: Workdir, store: StoreIdentity) -> Goal:
    """A trunk up to the last step that a branch without a result needs."""
    planned = dataclasses.replace(trunk.planned, config_hash=_trunk_hash(trunk.planned, store))
    last = processes.first_says(trunk.end(workdir))
    return Goal(planned, workdir.trunk_dir(trunk.name), last, always=frozenset(trunk.points), is_trunk=True)


def _trunk_hash(planned: PlannedRun, store: StoreIdentity) -> str:
    return identity.trunk_hash(planned.config, store.sha256, planned.counts.vocab_size)


def result_of(goal: Goal, say: Callable[[str], None]) -> Result | TrunkResult | None:
    """The goal's result on disk; None where it has none yet. Raises UserError where the folder holds a run
    of another config."""
    attempts.refuse_another(goal.folder, goal.planned.config_hash)
    if not goal.is_trunk:
        return attempts.finished(goal.folder, say)
    saved = max(goal.folder.saved_steps(), default=0)
    reached = processes.first_says(saved >= goal.last)
    return TrunkResult(goal.name, Status.DONE, saved) if reached else None
