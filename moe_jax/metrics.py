"""A run's log: metrics.jsonl (each logged step once, in order), the heartbeat, and where the time went.

Object stores cannot append, so metrics.jsonl is written whole: at each checkpoint and every FLUSH_SECONDS.
"""

import contextlib
import dataclasses
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

from moe_jax.errors import UserError
from moe_jax.rundir import RunDir
from moe_jax.sinks import Sink
from moe_jax.tables import number

FLUSH_SECONDS = 30.0
TIMES = ("train", "eval", "checkpoint", "compile", "data")


class Times:
    """Seconds by what they were spent on, kept across restarts through the heartbeat. What is nested counts inside
    only."""

    def __init__(self, before: Any):
        """`before` is what the heartbeat holds of them."""
        known = before if isinstance(before, dict) else {}
        self._ended = {name: _seconds(known.get(name)) for name in TIMES}
        self._open: list[_Frame] = []
        self._lock = threading.Lock()  # the heartbeat's thread reads

    @contextlib.contextmanager
    def spent_on(self, name: str) -> Iterator[None]:
        with self._lock:
            self._open.append(_Frame(name, time.perf_counter()))
        try:
            yield
        finally:
            with self._lock:
                frame = self._open.pop()
                whole = time.perf_counter() - frame.began
                self._ended[name] += whole - frame.inside
                if self._open:
                    self._open[-1].inside += whole

    @property
    def seconds(self) -> dict[str, float]:
        """Up to now: what is under way counts, as it is all that an attempt has that is killed."""
        with self._lock:
            seconds, end = dict(self._ended), time.perf_counter()
            for frame in reversed(self._open):
                seconds[frame.name] += end - frame.began - frame.inside
                end = frame.began  # the frame around it has been interrupted since then
            return seconds


def _seconds(value: Any) -> float:
    """0 for what no run has spent: beyond three centuries, or less than nothing."""
    seconds = float(number(value) or 0)
    return seconds if 0 <= seconds < 1e10 else 0.0


@dataclasses.dataclass
class _Frame:
    name: str
    began: float
    inside: float = 0.0  # seconds of what was nested in it and has ended


def _finite(values: dict[str, float | list[float]]) -> dict[str, Any]:
    """JSON has no NaN."""

    def finite(value: float | list[float]) -> Any:
        if isinstance(value, list):
            return [finite(v) for v in value]
        return value if math.isfinite(value) else None

    return {name: finite(value) for name, value in values.items()}


class Recorder:
    """Writes a run's signs of life in a thread. Only the first process of a run writes."""

    def __init__(
        self, folder: RunDir, *, steps: int, batch_tokens: int, attempt: int, writes: bool, flush_seconds: float,
        check_owner: Callable[[], None] = lambda: None, mfu_of_rate: float | None = None,
    ):  # fmt: skip
        """`check_owner` is called before every write; what it raises ends the run. `mfu_of_rate`, where the devices'
        peak is known, is the MFU of one token a second."""
        self._folder, self._writes, self._flush_seconds = folder, writes, flush_seconds
        self._check_owner, self._mfu_of_rate = check_owner, mfu_of_rate
        self.times = Times((folder.heartbeat() or {}).get("times"))
        self._batch_tokens = batch_tokens
        self._lines: list[dict[str, Any]] = []
        self._beat: dict[str, Any] = {
            "step": 0, "steps": steps, "tokens": 0, "loss": None, "tokens_per_second": None, "mfu": None,
            "seconds_left": None, "phase": "starting", "attempt": attempt, "host": socket.gethostname(),
        }  # fmt: skip
        self._rate_from: tuple[int, float] | None = None
        self._lock = threading.Lock()  # what is noted; never held while a file is written, so no step waits for one
        self._writing = threading.Lock()  # a snapshot and its files, so that no older one lands on a newer one
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._sinks: list[Sink] = []
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)
        if writes:
            self.flush()
            self._thread.start()

    def resume(self, step: int, trunk: RunDir | None = None) -> bool:
        """Keeps the logged steps before `step`; what was logged after the checkpoint is logged again. A run that begins
        from its `trunk` at that step takes the trunk's.

        Gives whether some of them cannot be read; how many is not known, as they may have been logged more seldom."""
        logged, whole = (trunk or self._folder).logged()
        with self._lock:
            self._lines = [line for line in logged if line["step"] < step]
            lost = len(self._lines) == len(logged) and (not whole or (step > 0 and not logged))  # step 0 always is
            loss = self._lines[-1].get("loss") if self._lines else None
            self._beat |= {"step": step, "tokens": step * self._batch_tokens, "loss": loss}
        return lost

    def add(self, sink: Sink) -> None:
        """Also logs there."""
        self._sinks.append(sink)

    def phase(self, phase: str) -> None:
        with self._lock:
            self._beat["phase"] = phase

    def seen(self, step: int, loss: float) -> None:
        """Step `step` (from 0) is done; for the heartbeat and the bar, logged or not."""
        now = time.monotonic()
        with self._lock:
            if self._rate_from is None:  # the first step has the compile in it
                self._rate_from = (step + 1, now)
            first, began = self._rate_from
            rate = (step + 1 - first) * self._batch_tokens / (now - began) if step + 1 > first else None
            left = (self._beat["steps"] - step - 1) * self._batch_tokens / rate if rate else None
            self._beat |= {
                "step": step + 1, "tokens": (step + 1) * self._batch_tokens, "loss": loss,
                "tokens_per_second": rate, "seconds_left": left,
                "mfu": None if rate is None or self._mfu_of_rate is None else rate * self._mfu_of_rate,
            }  # fmt: skip

    def log(self, step: int, values: dict[str, float | list[float]]) -> None:
        """A line of metrics.jsonl: step (from 0), tokens up to and with it, and `values`; lists are by layer."""
        line = {"step": step, "tokens": (step + 1) * self._batch_tokens}
        line |= _finite(values)
        with self._lock:
            self._lines.append(line | {name: self._beat[name] for name in ("tokens_per_second", "mfu")})
        self._to_sinks(step, values)

    def log_evaluation(self, values: dict[str, float]) -> None:
        """Adds an evaluation to the newest line."""
        with self._lock:
            if self._lines:
                self._lines[-1] |= _finite(values)
                self._to_sinks(self._lines[-1]["step"], values)

    def last(self, name: str) -> float | None:
        """The newest logged value of a name."""
        with self._lock:
            return self._lines[-1].get(name) if self._lines else None

    def _to_sinks(self, step: int, values: dict[str, float | list[float]]) -> None:
        scalars = {}
        for name, value in values.items():
            scalars |= {f"{name}/{i}": v for i, v in enumerate(value)} if isinstance(value, list) else {name: value}
        for sink in self._sinks:
            sink.scalars(step, scalars)

    @property
    def beat(self) -> dict[str, Any]:
        with self._lock:
            return dict(self._beat)

    def flush(self, metrics: bool = False) -> None:
        """Writes heartbeat.json, and metrics.jsonl too if asked. Raises OSError, what check_owner raises, and what the
        thread has met."""
        if not self._writes:
            return
        self.check()
        with self._writing:
            self._check_owner()
            with self._lock:
                beat, lines = self._beat | {"times": self.times.seconds}, list(self._lines)
            self._folder.write_heartbeat(beat)
            if metrics:
                self._folder.write_metrics(lines)
                for sink in self._sinks:
                    sink.flush()

    def check(self) -> None:
        """Raises what the thread has met."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()
        for sink in self._sinks:
            sink.close()

    def _work(self) -> None:
        written = time.monotonic()
        while not self._ended.wait(self._flush_seconds):
            due = time.monotonic() - written >= FLUSH_SECONDS
            try:
                self.flush(metrics=due and bool(self._lines))
            except (OSError, UserError) as e:
                self._error = e
                return
            written = time.monotonic() if due else written
