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

from moe_jax import command, errors, jobs, submission, tables
from moe_jax.collect import READERS
from moe_jax.jobs import Job
from moe_jax.runstate import STALE_SECONDS, STATES, state_of
from moe_jax.tables import number
from moe_jax.workdir import Workdir

_STYLES = {"running": "cyan", "done": "green", "queued": "dim", "stale": "yellow"}  # the others are red
# Where there are more runs than lines, what goes on or needs somebody is on top.
_FIRST = ("running", "stale", "failed", "damaged", "diverged", "queued", "done")
_MAX_EVERY = 86_400  # seconds
_NEEDS_WORDS = ("failed", "damaged", "stale", "diverged")


@dataclasses.dataclass(frozen=True)
class Line:
    """One run, or one trunk, now. What is not known is None."""

    name: str
    kind: str  # run | trunk, which has no result of its own
    job: str | None  # its launcher's name for it, where it was submitted
    state: str  # of runstate.STATES
    phase: str | None  # of a running one: compile, train, evaluate, …
    step: int
    steps: int  # a branch's from the beginning of its trunk
    train_loss: float | None  # nats per token, at the newest step
    eval_loss: float | None  # nats per token, of the result
    tokens_per_second: float | None
    seconds_left: float | None
    attempts: int
    age_seconds: float | None  # of the last sign of life
    sentence: str  # the last attempt's last words, or what is wrong
    share: float  # of the grid's FLOPs that it trains itself
    share_done: float  # of these


@dataclasses.dataclass(frozen=True)
class Snapshot:
    """The sweep at one moment."""

    workdir: str
    time: float
    lines: tuple[Line, ...]  # of the runs
    trunks: tuple[Line, ...]

    @property
    def totals(self) -> dict[str, int]:
        """How many runs are in each state that occurs, in the order of STATES. Trunks are not counted."""
        seen = Counter(line.state for line in self.lines)
        return {state: seen[state] for state in STATES if seen[state]}

    @property
    def flops_done(self) -> float:
        """The share of the grid's FLOPs that is done."""
        return sum(line.share * line.share_done for line in (*self.lines, *self.trunks))

    @property
    def finished(self) -> bool:
        """No run is waited for any more."""
        return not {"queued", "running", "stale"} & self.totals.keys()


def snapshot(work: Workdir) -> Snapshot:
    """Reads the manifest and every run's files. Raises UserError where there is no sweep."""
    manifest = work.existing_manifest()
    now = time.time()
    planned = jobs.jobs(manifest.runs, packed=False)
    flops = sum(job.train_flops for job in planned)
    submitted = submission.queued_as(work)
    with ThreadPoolExecutor(READERS) as pool:
        lines = list(pool.map(lambda job: _line(work, job, submitted.get(job.name), now, flops), planned))
    return Snapshot(
        str(work.path), now, tuple(x for x in lines if x.kind == "run"), tuple(x for x in lines if x.kind == "trunk")
    )


def _line(work: Workdir, job: Job, submitted_as: str | None, now: float, all_flops: float) -> Line:
    if job.is_trunk:
        run, seen = job.trunk.planned, jobs.trunk_state(job.trunk, work, now)
    else:
        run = job.runs[0]
        seen = state_of(run, work.run_dir(run.name), now)
    beat, result = seen.beat, seen.result or {}
    speed = number((result or beat).get("tokens_per_second"))
    left = (seen.steps - seen.step) * run.config.batch_tokens / speed if speed else None
    beat_time = number(beat.get("time"))
    own_steps = (seen.step - job.first_step) / max(1, job.last_step - job.first_step)
    return Line(
        name=job.name,
        kind="trunk" if job.is_trunk else "run",
        job=submitted_as,
        state=seen.state,
        phase=str(beat["phase"]) if seen.state == "running" and beat.get("phase") else None,
        step=seen.step,
        steps=seen.steps,
        train_loss=number(result.get("train_loss")) if result else number(beat.get("loss")),
        eval_loss=number(result.get("eval_loss")),
        tokens_per_second=speed,
        seconds_left=number(left) if seen.state == "running" else None,
        attempts=seen.attempts,
        age_seconds=None if beat_time is None else max(0.0, now - beat_time),
        sentence=_sentence(seen.state, seen.sentence, result, submitted_as),
        share=job.train_flops / all_flops,
        share_done=1.0 if seen.state == "done" else 0.0 if seen.state == "damaged" else min(1.0, max(0.0, own_steps)),
    )


def _sentence(state: str, last_words: str, result: dict[str, Any], submitted_as: str | None) -> str:
    if state == "diverged" and result:
        return f"the loss is not finite at step {result.get('diverged_step')}"
    if state == "stale":
        how = "the sweep started again" if submitted_as is None else "submit --retry_failed"
        return f"no sign of life for {tables.duration(STALE_SECONDS)} or more; {how} goes on with it"
    return last_words if state in _NEEDS_WORDS else ""


def table(snap: Snapshot, *, urgent_first: bool = False) -> tables.Table:
    """One row a trunk and a run, in the manifest's order or with the urgent ones on top."""
    lines = [*snap.trunks, *snap.lines]
    if urgent_first:
        lines.sort(key=lambda line: _FIRST.index(line.state))
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
        "job",
    ]
    rows = [
        (
            line.name + (" (trunk)" if line.kind == "trunk" else ""), _state_words(line),
            f"{line.step:,}/{line.steps:,}", f"{100 * line.step / max(1, line.steps):.0f}",
            tables.fixed(line.train_loss, 4), tables.fixed(line.eval_loss, 4),
            tables.short(line.tokens_per_second), tables.duration(line.seconds_left),
            str(line.attempts), _last_seen(line), line.job or "–",
        )
        for line in lines
    ]  # fmt: skip
    styles = [_STYLES.get(line.state, "red") for line in lines]
    known = tables.Table(
        headings, rows, styles, spare=["job", ">starts", ">last seen", ">tokens/s", ">%", ">train loss"]
    )
    return known if any(line.job for line in lines) else known.without("job")


def _state_words(line: Line) -> str:
    return line.state + (f" ({line.phase})" if line.phase not in (None, "train") else "")


def _last_seen(line: Line) -> str:
    """Of a run that is not at its end: of the others it says nothing."""
    if line.age_seconds is None or line.state in ("done", "diverged"):
        return "–"
    return f"{tables.duration(line.age_seconds)} ago"


def words(snap: Snapshot) -> list[str]:
    """The totals, and one line a run that needs somebody."""
    urgent = [line for line in (*snap.trunks, *snap.lines) if line.state in _NEEDS_WORDS]
    said = [
        f"{'trunk ' if line.kind == 'trunk' else ''}{line.name} ({line.state}): {tables.one_line(line.sentence)}"
        for line in urgent
    ]
    states = ", ".join(f"{n:,} {state}" for state, n in snap.totals.items())
    return [*said, f"{tables.count(len(snap.lines), 'run')}: {states}; {100 * snap.flops_done:.0f}% of the FLOPs done"]


def to_json(snap: Snapshot) -> dict[str, Any]:
    return {
        "workdir": snap.workdir,
        "time": snap.time,
        "totals": snap.totals,
        "flops_done": snap.flops_done,
        "runs": [dataclasses.asdict(line) for line in snap.lines],
        "trunks": [dataclasses.asdict(line) for line in snap.trunks],
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
    if not 0 < args.every <= _MAX_EVERY:
        raise errors.UserError(f"--every={args.every:g}: must be above 0 and at most {_MAX_EVERY}")
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


if __name__ == "__main__":
    command.end(main)
