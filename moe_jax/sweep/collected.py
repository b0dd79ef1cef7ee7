"""The results of a sweep: a row for every run that has a result, and a reason for every run that has none."""

import dataclasses
import time
from collections.abc import Sequence

from moe_jax import files, text
from moe_jax.errors import UserError
from moe_jax.sweep import results
from moe_jax.sweep.known_results import KnownResults
from moe_jax.sweep.manifest import Manifest, PlannedRun
from moe_jax.sweep.read_many import read_many
from moe_jax.sweep.results import Row
from moe_jax.sweep.run_state import State, state_of
from moe_jax.sweep.workdir import Workdir

OTHER_CONFIG = "other config"  # the state of a run whose result is of another config than the manifest's


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A run of the manifest that has no row."""

    name: str
    state: str  # a State, or OTHER_CONFIG
    why: str
    damaged: bool  # it has a result that cannot be used


@dataclasses.dataclass(frozen=True)
class Collected:
    """The results in a workdir, in the manifest's order."""

    rows: list[Row]
    left_out: list[LeftOut]


def gather(work: Workdir, manifest: Manifest, known: KnownResults) -> Collected:
    """Reads the files of every run whose result is not known, many at a time."""
    now = time.time()
    outcomes = read_many(lambda run: _outcome(work, run, known, now), manifest.runs)
    return Collected(
        rows=[o for o in outcomes if not isinstance(o, LeftOut)],
        left_out=[o for o in outcomes if isinstance(o, LeftOut)],
    )


def _outcome(work: Workdir, run: PlannedRun, known: KnownResults, now: float) -> Row | LeftOut:
    folder = work.run_dir(run.name)
    try:
        finished = known.finished(run, folder)
    except files.DamagedFile as e:
        return LeftOut(run.name, State.DAMAGED, str(e), damaged=True)
    if finished is None:
        seen = state_of(run, folder, now)
        return LeftOut(run.name, seen.state, seen.sentence or f"step {seen.step:,} of {seen.steps:,}", damaged=False)
    row = results.row_of(run, finished)
    if not results.matches(row, run):
        why = f"its result is of another config (hash {row['config_hash']}, the sweep's is {run.config_hash})"
        return LeftOut(run.name, OTHER_CONFIG, why, damaged=True)
    return row


def refuse_mixed(rows: Sequence[Row], allowed: Sequence[str]) -> None:
    """Raises UserError if rows differ in a column of UNMIXED that is not among the `allowed` ones."""
    for column, values in results.mixed(rows).items():
        if column not in allowed:
            said = ", ".join(f"{str(value)[:16]} in {text.count(n, 'run')}" for value, n in values.items())
            raise UserError(
                f"the finished runs have several values of {column} ({said}), so one law over them means little; "
                f"--mixed={column} writes them nevertheless"
            )
