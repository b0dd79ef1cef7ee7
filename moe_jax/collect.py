"""`moe-jax collect --workdir W`: the results of all finished runs -> W/results.csv, and what was left out and why."""

import dataclasses
import time
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

from moe_jax import command, errors, files, results, tables
from moe_jax.errors import UserError, WorkFailed
from moe_jax.manifest import Manifest, PlannedRun
from moe_jax.results import Row
from moe_jax.runstate import state_of
from moe_jax.workdir import Workdir

# Files are small and gs:// answers in tens of milliseconds, so what counts is how many reads are under way.
READERS = 64
_SHOWN = 60  # rows of the printed table; all of them are in the file


@dataclasses.dataclass(frozen=True)
class LeftOut:
    """A run of the manifest without a row."""

    name: str
    state: str  # of runstate.STATES, or "other config"
    why: str
    damaged: bool


@dataclasses.dataclass(frozen=True)
class Collected:
    """What a workdir holds now, in the manifest's order."""

    rows: list[Row]
    left_out: list[LeftOut]


def gather(work: Workdir, manifest: Manifest) -> Collected:
    """Reads every run's files, many at a time. A run that cannot be a row is named with its reason."""
    now = time.time()
    with ThreadPoolExecutor(READERS) as pool:
        outcomes = list(pool.map(lambda run: _outcome(work, run, now), manifest.runs))
    return Collected(
        rows=[o for o in outcomes if not isinstance(o, LeftOut)],
        left_out=[o for o in outcomes if isinstance(o, LeftOut)],
    )


def _outcome(work: Workdir, run: PlannedRun, now: float) -> Row | LeftOut:
    folder = work.run_dir(run.name)
    try:
        row = results.row(run, folder)
    except files.DamagedFile as e:
        return LeftOut(run.name, "damaged", str(e), damaged=True)
    if row is None:
        seen = state_of(run, folder, now)
        return LeftOut(run.name, seen.state, seen.sentence or f"step {seen.step:,} of {seen.steps:,}", damaged=False)
    if not results.matches(row, run):
        why = f"its result is of another config (hash {row['config_hash']}, the sweep's is {run.config_hash})"
        return LeftOut(run.name, "other config", why, damaged=True)
    return row


def refuse_mixed(rows: Sequence[Row], allowed: Sequence[str]) -> None:
    """Raises UserError where rows differ in a column that must be the same, and was not named in --mixed."""
    for column, values in results.mixed(rows).items():
        if column not in allowed:
            said = ", ".join(f"{str(value)[:16]} in {tables.count(n, 'run')}" for value, n in values.items())
            raise UserError(
                f"the finished runs have several values of {column} ({said}), so one law over them means little; "
                f"--mixed={column} writes them all the same"
            )


def main(argv: Sequence[str]) -> int:
    parser = command.parser("collect", __doc__)
    parser.add_argument("--workdir", required=True, help="the sweep's folder, local or gs://")
    parser.add_argument(
        "--mixed",
        default="",
        metavar="COLUMN,…",
        help=f"columns that may hold several values: {', '.join(results.UNMIXED)}",
    )
    args = parser.parse_args(argv)
    allowed = [column for column in args.mixed.split(",") if column]
    for column in allowed:
        if column not in results.UNMIXED:
            raise UserError(f"--mixed={column}: may be {', '.join(results.UNMIXED)}")

    work = Workdir(args.workdir)
    collected = gather(work, work.existing_manifest())
    refuse_mixed(collected.rows, allowed)
    _say_left_out(collected.left_out)
    if not collected.rows:
        raise WorkFailed(
            f"--workdir={work.path}: no run has a result yet, so there is nothing to collect; "
            "moe-jax status shows how far they are"
        )
    if len(collected.rows) <= _SHOWN:
        tables.show(_table(collected.rows))
    _write(work, collected.rows)
    return errors.FAILED if any(run.damaged for run in collected.left_out) else errors.DONE


def _write(work: Workdir, rows: Sequence[Row]) -> None:
    path, data = work.path / "results.csv", results.to_csv(rows)
    try:
        changed = path.read_bytes() != data
    except FileNotFoundError:
        changed = True
    if changed:
        files.write_atomic(path, data)
    diverged = sum(row["status"] == "diverged" for row in rows)
    said = f", {diverged:,} of them diverged (no fit uses those)" if diverged else ""
    print(f"{path}: {tables.count(len(rows), 'run')}{said}{'' if changed else '; as it was'}")


def _say_left_out(left_out: Sequence[LeftOut]) -> None:
    """One line a run that needs somebody; those that only need time are counted."""
    for run in left_out:
        if run.state not in ("queued", "running"):
            print(f"left out: {run.name} ({run.state}): {tables.one_line(run.why)}")
    for state in ("running", "queued"):
        if names := [run.name for run in left_out if run.state == state]:
            some = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
            print(f"left out: {tables.count(len(names), 'run')} {state} ({some})")


def _table(rows: Sequence[Row]) -> tables.Table:
    headings = ("run", "status", ">N total", ">D", ">G", ">eval loss", ">bits/byte", ">train loss", ">dropped", ">wall")
    cells = [
        (
            row["name"], row["status"], tables.short(row["n_total_nonemb"]), tables.short(row["tokens"]),
            tables.short(row["granularity"]), tables.fixed(row["eval_loss"], 4), tables.fixed(row["bits_per_byte"], 3),
            tables.fixed(row["train_loss"], 4), tables.percent(row["dropped_fraction"]),
            tables.duration(row["wall_seconds"]),
        )
        for row in rows
    ]  # fmt: skip
    styles = ["red" if row["status"] == "diverged" else "" for row in rows]
    return tables.Table(headings, cells, styles, spare=[">wall", ">bits/byte", ">train loss", ">dropped"])


if __name__ == "__main__":
    command.end(main)
