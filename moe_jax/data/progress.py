"""How far `prepare` is: a bar on a terminal, a plain line now and then in a log file."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

LINE_SECONDS = 10.0


@contextmanager
def stage(
    what: str, total: int, counted: Callable[[], int], out: TextIO | None = None, unit: str = "tokens"
) -> Iterator[Callable[[], None]]:
    """Shows `total` parts of work being done; gives the function to call after each. `counted` is how many units all
    so far."""
    out = out or sys.stdout
    began, at_start, done = time.perf_counter(), counted(), 0
    console = Console(file=out)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"))
    bar = Progress(*columns, TimeRemainingColumn(), console=console, disable=not console.is_terminal)
    task = bar.add_task(what, total=total, rate="")
    ended = threading.Event()

    def rate() -> str:
        n, seconds = counted() - at_start, max(time.perf_counter() - began, 1e-9)
        return f"{n:,} {unit}, {n / seconds:,.0f} {unit}/s"

    def line() -> None:
        print(f"{what}: {done}/{total}, {rate()}", file=out, flush=True)

    def show() -> None:
        while not ended.wait(0.25 if console.is_terminal else LINE_SECONDS):
            if console.is_terminal:
                bar.update(task, completed=done, rate=rate())
            else:
                line()

    def advance() -> None:
        nonlocal done
        done += 1

    shower = threading.Thread(target=show, name="progress", daemon=True)
    with bar:
        shower.start()
        try:
            yield advance
        finally:
            ended.set()
            shower.join()
            bar.update(task, completed=done, rate=rate())
    if not console.is_terminal:
        line()
