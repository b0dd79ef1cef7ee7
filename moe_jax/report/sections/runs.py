"""A sweep's setup, and a table of its runs with what went wrong in those that are not done."""

import dataclasses
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from moe_jax.report.elements import TABLE_ROWS, Badge, Code, Table, not_shown
from moe_jax.sweep.collected import LeftOut
from moe_jax.sweep.manifest import Manifest, PlannedRun
from moe_jax.sweep.results import Row
from moe_jax.sweep.run_record import RunRecord
from moe_jax.sweep.run_state import State
from moe_jax.sweep.snapshot import URGENT, Line, Snapshot
from moe_jax.text import count, duration, fixed, one_line, percent, short

_UNFINISHED = 60  # at most, that are listed with their sentence


@dataclasses.dataclass(frozen=True)
class Fact:
    """A name and a value. code: the value is set in a monospaced font."""

    name: str
    value: str
    code: bool = False


@dataclasses.dataclass(frozen=True)
class RunsSection:
    """The table of runs; sentences on damaged runs, and the runs that failed, diverged or stopped."""

    damaged: Sequence[str]
    table: Table
    not_shown: int  # runs beyond the table's rows
    unfinished: Sequence[Line]
    more_unfinished: int


def setup(manifest: Manifest, rows: Sequence[Row], first_run: RunRecord | None) -> list[Fact]:
    """Flags, data, machines and versions. first_run: of the first run that began."""
    config, store = manifest.runs[0].config, manifest.store
    facts = [
        Fact("sweep", manifest.sweep),
        Fact("made with", manifest.config_flags, code=True),
        Fact("rules", _counted(_rules_of(run) for run in manifest.runs)),
        Fact("token store", store.path),
        Fact("its SHA-256", f"{store.sha256[:16]}…", code=True),
        Fact("vocabulary", f"{store.vocab_size:,} tokens"),
        Fact("held out", f"{config.eval.sequences:,} windows of {config.data.sequence_length} tokens"),
        Fact("batch", _over_runs(manifest, lambda run: f"{run.config.batch_tokens:,} tokens")),
        Fact("learning rate", _over_runs(manifest, lambda run: f"{run.config.optim.learning_rate:g}")),
        Fact("router", _over_runs(manifest, lambda run: run.config.moe.router if run.config.moe else "none (dense)")),
        Fact("device", _counted(row["device"] for row in rows)),
        Fact("git commit", _counted(row["git_commit"] for row in rows)),
        Fact("mesh (first run)", _pairs(first_run.mesh if first_run else {})),
        Fact("versions (first run)", _pairs(first_run.versions if first_run else {})),
    ]
    return [fact for fact in facts if fact.value]


def _rules_of(run: PlannedRun) -> str | None:
    """The fields that a law set, which the flags of the sweep do not name; None without any."""
    said = (f"{field} by {rule['law']} ({rule['source']})" for field, rule in (run.rules or {}).items())
    return "; ".join(said) or None


def _over_runs(manifest: Manifest, value_of: Callable[[PlannedRun], str]) -> str:
    return _counted(value_of(run) for run in manifest.runs)


def _counted(values: Iterable[Any]) -> str:
    """Each value with its number of runs, or the one value that all runs have."""
    seen = Counter(str(value) for value in values if value is not None)
    if len(seen) == 1:
        return next(iter(seen))
    shown = ", ".join(f"{value} ({count(n, 'run')})" for value, n in seen.most_common(6))
    return shown + (" …" if len(seen) > 6 else "")


def _pairs(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items())


def runs(manifest: Manifest, snapshot: Snapshot, rows: Sequence[Row], left_out: Sequence[LeftOut]) -> RunsSection:
    """Every run with its state and results, by size."""
    by_name, lines = {row["name"]: row for row in rows}, {line.name: line for line in snapshot.lines}
    planned = sorted(manifest.runs, key=_by_size)
    headings = (
        "run", "state", ">N total", ">N active", ">D", ">G", ">E", ">held-out loss", ">bits/byte", ">train loss",
        ">dropped", ">tokens/s", ">wall time",
    )  # fmt: skip
    table = Table(
        headings,
        [_run_row(run, lines[run.name], by_name.get(run.name)) for run in planned[:TABLE_ROWS]],
        caption="Losses are in nats per token. N excludes embeddings, router and norms.",
        tall=len(planned) > 30,
    )
    unfinished = [line for line in snapshot.lines if line.state in URGENT]
    return RunsSection(
        damaged=[f"{run.name}: {run.why}" for run in left_out if run.damaged],
        table=table,
        not_shown=not_shown(planned),
        unfinished=[dataclasses.replace(x, sentence=one_line(x.sentence)) for x in unfinished[:_UNFINISHED]],
        more_unfinished=max(0, len(unfinished) - _UNFINISHED),
    )


def _by_size(run: PlannedRun) -> tuple:
    G = run.config.moe.granularity if run.config.moe else 0
    return run.counts.n_total_nonemb, run.counts.tokens, G, run.name


def _run_row(run: PlannedRun, line: Line, row: Row | None) -> list[str | Code | Badge]:
    moe, row = run.config.moe, row or {}
    progress = (
        f" {100 * line.step / line.steps:.0f}%" if line.state in (State.RUNNING, State.STALE, State.FAILED) else ""
    )
    return [
        Code(run.name), Badge(line.state, line.state, progress), short(run.counts.n_total_nonemb),
        short(run.counts.n_active_nonemb), short(run.counts.tokens), short(moe.granularity) if moe else "dense",
        short(moe.expansion_rate) if moe else "–", fixed(row.get("eval_loss"), 4), fixed(row.get("bits_per_byte"), 3),
        fixed(row.get("train_loss"), 4), percent(row.get("dropped_fraction")), short(line.tokens_per_second),
        duration(row.get("wall_seconds")),
    ]  # fmt: skip
