"""How far a run or a grid is: bars on a terminal, a plain line now and then in a log file."""

import sys
import time
from typing import Any, TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from moe_jax.tables import duration, fixed, number, short

LINE_SECONDS = 10.0


def describe(beat: dict[str, Any]) -> str:
    """`loss 2.713, 41.2k tokens/s, 12 s left` of a heartbeat; its phase where there is no rate yet."""
    rate, left, loss = (number(beat.get(name)) for name in ("tokens_per_second", "seconds_left", "loss"))
    if rate is None:
        return str(beat.get("phase", ""))
    return f"loss {fixed(loss, 3)}, {short(rate)} tokens/s, {duration(left)} left"


class Display:
    """One bar a thing, each with `done` of `total` and a text; on no terminal, a line a bar at most every
    LINE_SECONDS."""

    def __init__(self, out: TextIO | None = None):
        self._out = out or sys.stdout
        console = Console(file=self._out)
        self._bars = console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not self._bars, refresh_per_second=4)
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, name: str, done: int, total: int, text: str, *, now: bool = False) -> None:
        """Shows a bar as it is; with `now` a log file gets its line whenever the last was."""
        if self._bars:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=total, text=text)
            self._progress.update(self._tasks[name], completed=done, total=total, text=text)
        elif now or time.monotonic() - self._said.get(name, -LINE_SECONDS) >= LINE_SECONDS:
            self._said[name] = time.monotonic()
            self.say(f"{name}: {done}/{total} {text}".rstrip())

    def remove(self, name: str) -> None:
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))

    def say(self, sentence: str) -> None:
        """A line that stays, above the bars."""
        if self._bars:
            self._progress.console.print(sentence, markup=False, highlight=False)
        else:
            print(sentence, file=self._out, flush=True)
