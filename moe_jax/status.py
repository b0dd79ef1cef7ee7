"""`moe-jax status --workdir W`: which runs are queued, running, done, diverged, failed or stale, from files alone.

It writes nothing and asks no process, so it works on gs://, from any machine, and while the runs go on.
"""

import dataclasses
import json
import sys
import time
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from moe_jax import command, errors, tables
from moe_jax.collect import READERS
from moe_jax.tables import number
from moe_jax.workdir import STALE_SECONDS, STATES, PlannedRun, Workdir, state_of

_STYLES = {"running": "cyan", "done": "green", "queued": "dim", "stale": "yellow"}  # the others are red
# Where there are more runs than lines, what goes on or needs somebody is on top.
_FIRST = ("running", "stale", "failed", "damaged", "diverged", "queued", "done")
_NEEDS_WORDS = ("failed", "damaged", "stale", "diverged")


@dataclasses.dataclass(frozen=True)
class Line:
    """One run now. What is not known is None."""

    name: str
    state: str  # of workdir.STATES
    phase: str | None  # of a running one: compile, train, evaluate, …
    step: int
    steps: int
    train_loss: float | None  # nats per token, at the newest step
    eval_loss: float | None  # nats per token, of the result
    tokens_per_second: float | None
    seconds_left: float | None
    attempts: int
    age_seconds: float | None  # of the last sign of life
    sentence: str  # the last attempt's last words, or what is wrong
    share: float  # of the grid's FLOPs that this run is


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The sweep at one moment."""

    workdir: str
    time: float
    lines: tuple[Line, ...]

    @property
    def totals(self) -> dict[str, int]:
        """How many runs are in each state that occurs, in the order of STATES."""
        seen = Counter(line.state for line in self.lines)
        return {state: seen[state] for state in STATES if seen[state]}

    @property
    def flops_done(self) -> float:
        """The share of the grid's FLOPs that is done."""
        return sum(line.share * min(1.0, line.step / line.steps) for line in self.lines)

    @property
    def finished(self) -> bool:
        """No run is waited for any more."""
        return not {"queued", "running", "stale"} & self.totals.keys()


def snapshot(work: Workdir) -> Snapshot:
    """Reads the manifest and every run's files. Raises UserError where there is no sweep."""
    manifest = work.existing_manifest()
    now = time.time()
    flops = sum(run.counts["train_flops"] for run in manifest.runs)
    with ThreadPoolExecutor(READERS) as pool:
        lines = tuple(pool.map(lambda run: _line(work, run, now, flops), manifest.runs))
    return Snapshot(str(work.path), now, lines)


def _line(work: Workdir, run: PlannedRun, now: float, all_flops: float) -> Line:
    seen = state_of(run, work.run_dir(run.name), now)
    beat, result = seen.beat, seen.result or {}
    speed = number((result or beat).get("tokens_per_second"))
    left = (seen.steps - seen.step) * run.config.batch_tokens
    beat_time = number(beat.get("time"))
    return Line(
        name=run.name,
        state=seen.state,
        phase=str(beat["phase"]) if seen.state == "running" and beat.get("phase") else None,
        step=seen.step,
        steps=seen.steps,
        train_loss=number(result.get("train_loss")) if result else number(beat.get("loss")),
        eval_loss=number(result.get("eval_loss")),
        tokens_per_second=speed,
        seconds_left=left / speed if seen.state == "running" and speed else None,
        attempts=seen.attempts,
        age_seconds=None if beat_time is None else max(0.0, now - beat_time),
        sentence=_sentence(seen.state, seen.sentence, result),
        share=run.counts["train_flops"] / all_flops,
    )


def _sentence(state: str, last_words: str, result: dict[str, Any]) -> str:
    if state == "diverged":
        return f"the loss is not finite at step {result.get('diverged_step')}"
    if state == "stale":
        return f"no sign of life for {tables.duration(STALE_SECONDS)} or more; the sweep started again goes on with it"
    return last_words if state in ("failed", "damaged") else ""


def table(snap: Snapshot, *, urgent_first: bool = False) -> tables.Table:
    """One row a run, in the manifest's order or with the urgent ones on top."""
    lines = sorted(snap.lines, key=lambda line: _FIRST.index(line.state)) if urgent_first else snap.lines
    headings = [
        "run",
        "state",
        ">step",
        ">%",
        ">train loss",
        ">eval loss",
        ">tokens/s",
        ">left",
        ">starts",
        ">last seen",
    ]
    rows = [
        (
            line.name, line.state + (f" ({line.phase})" if line.phase not in (None, "train") else ""),
            f"{line.step:,}/{line.steps:,}", f"{100 * line.step / line.steps:.0f}", tables.fixed(line.train_loss, 4),
            tables.fixed(line.eval_loss, 4), tables.short(line.tokens_per_second), tables.duration(line.seconds_left),
            str(line.attempts), _last_seen(line),
        )
        for line in lines
    ]  # fmt: skip
    styles = [_STYLES.get(line.state, "red") for line in lines]
    return tables.Table(headings, rows, styles, spare=[">starts", ">last seen", ">tokens/s", ">%", ">train loss"])


def _last_seen(line: Line) -> str:
    """Of a run that is not at its end: of the others it says nothing."""
    if line.age_seconds is None or line.state in ("done", "diverged"):
        return "–"
    return f"{tables.duration(line.age_seconds)} ago"


def words(snap: Snapshot) -> list[str]:
    """The totals, and one line a run that needs somebody."""
    urgent = [line for line in snap.lines if line.state in _NEEDS_WORDS]
    said = [f"{line.name} ({line.state}): {tables.one_line(line.sentence)}" for line in urgent]
    states = ", ".join(f"{n:,} {state}" for state, n in snap.totals.items())
    return [*said, f"{tables.count(len(snap.lines), 'run')}: {states}; {100 * snap.flops_done:.0f}% of the FLOPs done"]


def to_json(snap: Snapshot) -> dict[str, Any]:
    return {
        "workdir": snap.workdir,
        "time": snap.time,
        "totals": snap.totals,
        "flops_done": snap.flops_done,
        "runs": [dataclasses.asdict(line) for line in snap.lines],
    }


def main(argv: Sequence[str]) -> int:
    parser = command.parser("status", __doc__)
    parser.add_argument("--workdir", required=True, help="the sweep's folder, local or gs://")
    parser.add_argument(
        "--json", action="store_true", help="one JSON object instead of a table; with --watch a line each time"
    )
    parser.add_argument("--watch", action="store_true", help="again and again, until no run is waited for or Ctrl-C")
    parser.add_argument("--every", type=float, default=5.0, metavar="SECONDS", help="pause of --watch (default: 5)")
    args = parser.parse_args(argv)
    if not args.every > 0:
        raise errors.UserError(f"--every={args.every:g}: must be above 0")
    work = Workdir(args.workdir)
    if args.watch:
        _watch(work, args.every, as_json=args.json)
        return errors.DONE
    snap = snapshot(work)
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
            snap = snapshot(work)
            if as_json:
                print(json.dumps(to_json(snap)), flush=True)
            elif said != (said := words(snap)):  # a log file needs no line that says what the last one said
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
            snap = snapshot(work)
            runs = table(snap, urgent_first=True).fitted(console.width)
            live.update(Group(*map(Text, words(snap)), tables.rich_table(runs)), refresh=True)
            if snap.finished:
                return
            time.sleep(every)
