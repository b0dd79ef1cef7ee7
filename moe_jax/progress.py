"""Progress of runs, grids and stages of work: bars on a terminal, a plain line now and then in a log file."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn

from moe_jax.text import duration

LINE_SECONDS = 10.0  # between two lines of one bar in a log file


class Display:
    """Bars by name, each with `done` of `total` and a text. Without a terminal, each bar prints a line at most every
    LINE_SECONDS."""

    def __init__(self, out: TextIO | None = None):
        """`out` is standard output unless given."""
        self._out = out or sys.stdout
        console = Console(file=self._out)
        self.on_terminal = console.is_terminal
        columns = (
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
        )
        self._progress = Progress(*columns, console=console, disable=not self.on_terminal, refresh_per_second=4)
        self._tasks: dict[str, TaskID] = {}
        self._said: dict[str, float] = {}

    def __enter__(self) -> "Display":
        self._progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._progress.stop()

    def update(self, name: str, done: int, total: int, text: str, *, now: bool = False) -> None:
        """Sets a bar, which the first call adds. With `now`, a log file gets a line however recent the last one is."""
        if self.on_terminal:
            if name not in self._tasks:
                self._tasks[name] = self._progress.add_task(name, total=total, text=text)
            self._progress.update(self._tasks[name], completed=done, total=total, text=text)
        elif now or time.monotonic() - self._said.get(name, -LINE_SECONDS) >= LINE_SECONDS:
            self._said[name] = time.monotonic()
            self.say(f"{name}: {done}/{total} {text}".rstrip())

    def remove(self, name: str) -> None:
        """Takes a bar away, if it is there."""
        if name in self._tasks:
            self._progress.remove_task(self._tasks.pop(name))

    def say(self, sentence: str) -> None:
        """Prints a line that stays, above the bars."""
        if self.on_terminal:
            self._progress.console.print(sentence, markup=False, highlight=False)
        else:
            print(sentence, file=self._out, flush=True)


@contextmanager
def stage(
    name: str, total: int, counted: Callable[[], int], unit: str = "tokens", out: TextIO | None = None
) -> Iterator[Callable[[], None]]:
    """Shows the progress of `total` parts of work; yields the function to call after each part.

    `counted` gives how many units have been done so far, from which the rate follows."""
    began, counted_before, done = time.perf_counter(), counted(), 0
    ended = threading.Event()

    def rate() -> str:
        n, seconds = counted() - counted_before, max(time.perf_counter() - began, 1e-9)
        left = f", {duration(seconds * (total - done) / done)} left" if 0 < done < total else ""
        return f"{n:,} {unit}, {n / seconds:,.0f} {unit}/s{left}"

    def refresh() -> None:
        while not ended.wait(0.25 if display.on_terminal else LINE_SECONDS):
            display.update(name, done, total, rate())

    def advance() -> None:
        nonlocal done
        done += 1

    with Display(out) as display:
        refresher = threading.Thread(target=refresh, name="progress", daemon=True)
        refresher.start()
        try:
            yield advance
        finally:
            ended.set()
            refresher.join()
        display.update(name, done, total, rate(), now=True)
