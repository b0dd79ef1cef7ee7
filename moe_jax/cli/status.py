"""`moe-jax status --workdir W`: which runs are queued, running, done, diverged, failed or stale, from files alone.

It writes nothing and asks no process, so it works on gs://, from any machine, and while the runs train.
"""

import dataclasses
import json
import sys
import time
from collections.abc import Sequence
from typing import Any

from moe_jax import errors, text
from moe_jax.cli import command, tables
from moe_jax.sweep.heartbeat import Phase
from moe_jax.sweep.run_state import State
from moe_jax.sweep.snapshot import URGENT, Line, Snapshot, take_snapshot
from moe_jax.sweep.workdir import Workdir

# The states not named here are red.
_STYLES = {State.RUNNING: "cyan", State.DONE: "green", State.QUEUED: "dim", State.STALE: "yellow"}
# A terminal may have fewer lines than there are runs: running ones and those that somebody has to look at are on top.
_TOP_FIRST = (
    State.RUNNING, State.STALE, State.FAILED, State.DAMAGED, State.DIVERGED, State.QUEUED, State.DONE,
)  # fmt: skip
_MAX_EVERY = 86_400  # seconds


def table(snap: Snapshot, *, urgent_first: bool = False) -> tables.Table:
    """A row for every trunk and run, in the manifest's order or with the urgent ones on top."""
    lines = [*snap.trunks, *snap.lines]
    if urgent_first:
        lines.sort(key=lambda line: _TOP_FIRST.index(line.state))
    headings = [
        "run", "state", ">step", ">%", ">train loss", ">eval loss", ">tokens/s", ">left", ">starts", ">last seen",
        "job",
    ]  # fmt: skip
    rows = [
        (
            line.name + (" (trunk)" if line.kind == "trunk" else ""), _state_words(line),
            f"{line.step:,}/{line.steps:,}", f"{100 * line.step / max(1, line.steps):.0f}",
            text.fixed(line.train_loss, 4), text.fixed(line.eval_loss, 4),
            text.short(line.tokens_per_second), text.duration(line.seconds_left),
            str(line.attempts), _last_seen(line), line.job or "–",
        )
        for line in lines
    ]  # fmt: skip
    styles = [_STYLES.get(line.state, "red") for line in lines]
    spare = ["job", ">starts", ">last seen", ">tokens/s", ">%", ">train loss"]
    whole = tables.Table(headings, rows, styles, spare=spare)
    return whole if any(line.job for line in lines) else whole.without("job")


def _state_words(line: Line) -> str:
    return line.state + (f" ({line.phase})" if line.phase not in (None, Phase.TRAINING) else "")


def _last_seen(line: Line) -> str:
    """How long ago the newest heartbeat was; a dash for a run that has ended."""
    if line.age_seconds is None or line.state in (State.DONE, State.DIVERGED):
        return "–"
    return f"{text.duration(line.age_seconds)} ago"


def words(snap: Snapshot) -> list[str]:
    """A line for every run that somebody has to look at, and the totals."""
    urgent = [line for line in (*snap.trunks, *snap.lines) if line.state in URGENT]
    said = [
        f"{'trunk ' if line.kind == 'trunk' else ''}{line.name} ({line.state}): {text.one_line(line.sentence)}"
        for line in urgent
    ]
    states = ", ".join(f"{n:,} {state}" for state, n in snap.totals.items())
    said += [text.one_line(note) for note in snap.notes]
    return [*said, f"{text.count(len(snap.lines), 'run')}: {states}; {100 * snap.flops_done:.0f}% of the FLOPs done"]


def to_json(snap: Snapshot) -> dict[str, Any]:
    """The object that --json prints."""
    return {
        "workdir": snap.workdir,
        "time": snap.time,
        "totals": snap.totals,
        "flops_done": snap.flops_done,
        "runs": [dataclasses.asdict(line) for line in snap.lines],
        "trunks": [dataclasses.asdict(line) for line in snap.trunks],
        "notes": snap.notes,
    }


def main(argv: Sequence[str]) -> int:
    parser = command.parser("status", __doc__)
    parser.add_argument("--workdir", required=True, help="the sweep's folder, local or gs://")
    parser.add_argument(
        "--json", action="store_true", help="print a JSON object instead of a table; with --watch one line each time"
    )
    parser.add_argument("--watch", action="store_true", help="repeat until no run is left to train, or until Ctrl-C")
    parser.add_argument(
        "--every", type=float, default=5.0, metavar="SECONDS", help="pause between repetitions of --watch (default: 5)"
    )
    args = parser.parse_args(argv)
    if not 0 < args.every <= _MAX_EVERY:
        raise errors.UserError(f"--every={args.every:g}: must be above 0 and at most {_MAX_EVERY}")
    work = Workdir(args.workdir)
    if args.watch:
        _watch(work, args.every, as_json=args.json)
        return errors.DONE
    snap = take_snapshot(work)
    if args.json:
        print(json.dumps(to_json(snap), indent=1))
    else:
        tables.show(table(snap))
        print("\n".join(words(snap)))
    return errors.DONE


def _watch(work: Workdir, every: float, *, as_json: bool) -> None:
    try:
        if sys.stdout.isatty() and not as_json:
            _watch_terminal(work, every)
            return
        said = None
        while True:
            snap = take_snapshot(work)
            if as_json:
                print(json.dumps(to_json(snap)), flush=True)
            elif said != (said := words(snap)):  # a log file gets only what has changed
                print("\n".join(said), flush=True)
            if snap.finished:
                return
            time.sleep(every)
    except KeyboardInterrupt:
        return


def _watch_terminal(work: Workdir, every: float) -> None:
    from rich.console import Console, Group
    from rich.live import Live
    from rich.text import Text

    console = Console()
    with Live(console=console, auto_refresh=False) as live:
        while True:
            snap = take_snapshot(work)
            runs = table(snap, urgent_first=True).fitted(console.width)
            live.update(Group(*map(Text, words(snap)), tables.rich_table(runs)), refresh=True)
            if snap.finished:
                return
            time.sleep(every)
