"""What a run writes while it trains: metrics.jsonl (each logged step once, in order) and the heartbeat, with its times.

Object stores cannot append, so metrics.jsonl is written whole: at each checkpoint and every FLUSH_SECONDS.
"""

import contextlib
import dataclasses
import math
import socket
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from moe_jax.errors import UserError
from moe_jax.sweep.heartbeat import Heartbeat, Phase
from moe_jax.sweep.rundir import RunDir
from moe_jax.training.sinks import Sink

FLUSH_SECONDS = 30.0
TIMES = ("train", "eval", "checkpoint", "compile", "data")


class Times:
    """Seconds by what they were spent on (TIMES), over all starts. Nested time counts for the inner name only."""

    def __init__(self, before: Mapping[str, float]):
        """`before` are the seconds of the earlier starts, from the heartbeat."""
        self._ended = {name: float(before.get(name, 0.0)) for name in TIMES}
        self._open: list[_Frame] = []
        self._lock = threading.Lock()  # the heartbeat's thread reads

    @contextlib.contextmanager
    def spent_on(self, name: str) -> Iterator[None]:
        """Counts the time inside the `with` block for `name`, one of TIMES."""
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
        """The seconds up to now. Open blocks count: a start that is killed has nothing else."""
        with self._lock:
            seconds, end = dict(self._ended), time.perf_counter()
            for frame in reversed(self._open):
                seconds[frame.name] += end - frame.began - frame.inside
                end = frame.began  # the frame around it has been interrupted since then
            return seconds


@dataclasses.dataclass
class _Frame:
    name: str
    began: float
    inside: float = 0.0  # seconds of the nested blocks that have ended


def _finite(values: dict[str, float | list[float]]) -> dict[str, Any]:
    """The values with None for what JSON cannot hold: NaN and infinities."""

    def finite(value: float | list[float]) -> Any:
        if isinstance(value, list):
            return [finite(v) for v in value]
        return value if math.isfinite(value) else None

    return {name: finite(value) for name, value in values.items()}


class Recorder:
    """Keeps a run's log and heartbeat, and writes both from a thread. Only the first process of a run writes."""

    def __init__(
        self, folder: RunDir, *, steps: int, batch_tokens: int, attempt: int, writes: bool, flush_seconds: float,
        check_owner: Callable[[], None] = lambda: None, mfu_of_rate: float | None = None,
    ):  # fmt: skip
        """`check_owner` is called before every write; what it raises ends the run. `mfu_of_rate` is the MFU of one
        token a second; None if the devices' peak is not known."""
        self._folder, self._writes, self._flush_seconds = folder, writes, flush_seconds
        self._check_owner, self._mfu_of_rate = check_owner, mfu_of_rate
        self.times = Times((folder.heartbeat() or Heartbeat()).times)
        self._batch_tokens = batch_tokens
        self._lines: list[dict[str, Any]] = []
        self._heartbeat = Heartbeat(steps=steps, phase=Phase.STARTING, attempt=attempt, host=socket.gethostname())
        self._rate_from: tuple[int, float] | None = None  # (updates done, clock) from which the rate is measured
        self._lock = threading.Lock()  # for the fields; never held while a file is written, so no step waits for one
        self._writing = threading.Lock()  # for the files, so that an older state never replaces a newer one
        self._ended = threading.Event()
        self._error: BaseException | None = None
        self._sinks: list[Sink] = []
        self._thread = threading.Thread(target=self._work, name="heartbeat", daemon=True)
        if writes:
            self.flush()
            self._thread.start()

    def resume(self, step: int, trunk: RunDir | None = None) -> bool:
        """Keeps the logged steps before `step`, of the run or, if it begins from its `trunk`, of the trunk. Later steps
        are logged again.

        Returns whether some of them cannot be read. Their number is not known: runs may log every step or fewer."""
        logged, whole = (trunk or self._folder).logged()
        with self._lock:
            self._lines = [line for line in logged if line["step"] < step]
            lost = len(self._lines) == len(logged) and (not whole or (step > 0 and not logged))  # step 0 always is
            loss = self._lines[-1].get("loss") if self._lines else None
            self._update(step=step, tokens=step * self._batch_tokens, loss=loss)
        return lost

    def add(self, sink: Sink) -> None:
        """Logs to `sink` too."""
        self._sinks.append(sink)

    def enter(self, phase: Phase) -> None:
        """Sets the phase of the run in the heartbeat."""
        with self._lock:
            self._update(phase=phase)

    def _update(self, **changed: Any) -> None:
        self._heartbeat = dataclasses.replace(self._heartbeat, **changed)

    def seen(self, step: int, loss: float) -> None:
        """Puts step `step` (from 0) into the heartbeat, logged or not; loss in nats per token."""
        now = time.monotonic()
        with self._lock:
            if self._rate_from is None:  # the first step has the compile in it
                self._rate_from = (step + 1, now)
            first, began = self._rate_from
            rate = (step + 1 - first) * self._batch_tokens / (now - began) if step + 1 > first else None
            self._update(
                step=step + 1,
                tokens=(step + 1) * self._batch_tokens,
                loss=loss,
                tokens_per_second=rate,
                mfu=None if rate is None or self._mfu_of_rate is None else rate * self._mfu_of_rate,
                seconds_left=(self._heartbeat.steps - step - 1) * self._batch_tokens / rate if rate else None,
            )

    def log(self, step: int, values: dict[str, float | list[float]]) -> None:
        """Adds a line of metrics.jsonl: step (from 0), tokens up to and with it, rates, and `values`; lists are by
        layer."""
        line = {"step": step, "tokens": (step + 1) * self._batch_tokens} | _finite(values)
        with self._lock:
            rates = {"tokens_per_second": self._heartbeat.tokens_per_second, "mfu": self._heartbeat.mfu}
            self._lines.append(line | rates)
        self._to_sinks(step, values)

    def log_evaluation(self, values: dict[str, float]) -> None:
        """Adds an evaluation to the newest line."""
        with self._lock:
            if self._lines:
                self._lines[-1] |= _finite(values)
                self._to_sinks(self._lines[-1]["step"], values)

    def last(self, name: str) -> float | None:
        """The value of a name in the newest line; None if it has none."""
        with self._lock:
            return self._lines[-1].get(name) if self._lines else None

    def _to_sinks(self, step: int, values: dict[str, float | list[float]]) -> None:
        scalars = {}
        for name, value in values.items():
            scalars |= {f"{name}/{i}": v for i, v in enumerate(value)} if isinstance(value, list) else {name: value}
        for sink in self._sinks:
            sink.scalars(step, scalars)

    @property
    def heartbeat(self) -> Heartbeat:
        """The heartbeat now, without times, which `times` has."""
        with self._lock:
            return self._heartbeat

    def flush(self, metrics: bool = False) -> None:
        """Writes heartbeat.json and, with `metrics`, metrics.jsonl. Raises OSError, what check_owner raises, and what
        the thread caught."""
        if not self._writes:
            return
        self.check()
        with self._writing:
            self._check_owner()
            with self._lock:
                heartbeat, lines = self._heartbeat, list(self._lines)
            self._folder.write_heartbeat(dataclasses.replace(heartbeat, times=self.times.seconds, time=time.time()))
            if metrics:
                self._folder.write_metrics(lines)
                for sink in self._sinks:
                    sink.flush()

    def check(self) -> None:
        """Raises what the thread caught."""
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def close(self) -> None:
        """Ends the thread and closes the sinks."""
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
