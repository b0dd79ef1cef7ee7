"""`moe-jax collect --workdir W`: the results of all finished runs -> W/results.csv, and the runs that are left out,
with reasons."""

from collections.abc import Sequence

from moe_jax import errors, files, text
from moe_jax.cli import command, tables
from moe_jax.errors import UserError, WorkFailed
from moe_jax.sweep import results
from moe_jax.sweep.collected import LeftOut, gather, refuse_mixed
from moe_jax.sweep.known_results import KnownResults
from moe_jax.sweep.result import Status
from moe_jax.sweep.results import Row
from moe_jax.sweep.run_state import State
from moe_jax.sweep.workdir import Workdir

_MAX_PRINTED = 60  # rows; a longer table is not printed, only written


def main(argv: Sequence[str]) -> int:
    parser = command.parser("collect", __doc__)
    parser.add_argument("--workdir", required=True, help="the sweep's folder, local or gs://")
    parser.add_argument(
        "--mixed",
        default="",
        metavar="COLUMN,…",
        help=f"columns that may have several values: {', '.join(results.UNMIXED)}",
    )
    args = parser.parse_args(argv)
    allowed = [column for column in args.mixed.split(",") if column]
    for column in allowed:
        if column not in results.UNMIXED:
            raise UserError(f"--mixed={column}: must be one of {', '.join(results.UNMIXED)}")

    work = Workdir(args.workdir)
    known = KnownResults(work)
    collected = gather(work, work.existing_manifest(), known)
    refuse_mixed(collected.rows, allowed)
    _say_left_out(collected.left_out)
    if not collected.rows:
        raise WorkFailed(
            f"--workdir={work.path}: no run has a result yet, so there is nothing to collect; "
            "moe-jax status shows how far they are"
        )
    if len(collected.rows) <= _MAX_PRINTED:
        tables.show(_table(collected.rows))
    _write(work, collected.rows)
    known.write()
    return errors.FAILED if any(run.damaged for run in collected.left_out) else errors.DONE


def _write(work: Workdir, rows: Sequence[Row]) -> None:
    path, data = work.path / "results.csv", results.to_csv(rows)
    try:
        changed = path.read_bytes() != data
    except FileNotFoundError:
        changed = True
    if changed:
        files.write_atomic(path, data)
    diverged = sum(row["status"] == Status.DIVERGED for row in rows)
    said = f", {diverged:,} of them diverged (no fit uses those)" if diverged else ""
    print(f"{path}: {text.count(len(rows), 'run')}{said}{'' if changed else '; unchanged'}")


def _say_left_out(left_out: Sequence[LeftOut]) -> None:
    """A line for every run that somebody has to look at; runs that only take time are counted."""
    unfinished = (State.RUNNING, State.QUEUED)
    for run in left_out:
        if run.state not in unfinished:
            print(f"left out: {run.name} ({run.state}): {text.one_line(run.why)}")
    for state in unfinished:
        if names := [run.name for run in left_out if run.state == state]:
            some = ", ".join(names[:4]) + (", …" if len(names) > 4 else "")
            print(f"left out: {text.count(len(names), 'run')} {state} ({some})")


def _table(rows: Sequence[Row]) -> tables.Table:
    headings = ("run", "status", ">N total", ">D", ">G", ">eval loss", ">bits/byte", ">train loss", ">dropped", ">wall")
    cells = [
        (
            row["name"], row["status"], text.short(row["n_total_nonemb"]), text.short(row["tokens"]),
            text.short(row["granularity"]), text.fixed(row["eval_loss"], 4), text.fixed(row["bits_per_byte"], 3),
            text.fixed(row["train_loss"], 4), text.percent(row["dropped_fraction"]),
            text.duration(row["wall_seconds"]),
        )
        for row in rows
    ]  # fmt: skip
    styles = ["red" if row["status"] == Status.DIVERGED else "" for row in rows]
    return tables.Table(headings, cells, styles, spare=[">wall", ">bits/byte", ">train loss", ">dropped"])
