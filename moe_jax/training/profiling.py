"""A profiler trace of chosen steps, under runs/<name>/profile: `tensorboard --logdir`, XProf or Perfetto show it.

The first process traces: all do the same. A run that is resumed past the chosen steps traces nothing.
"""

import tempfile
from pathlib import Path
from typing import Any

import jax
from etils import epath

from moe_jax.config.schema import ProfileConfig


class Tracer:
    """Call `before(step, state)` ahead of every step; use as a context manager, which ends a trace that is open."""

    def __init__(self, config: ProfileConfig, folder: epath.Path, active: bool):
        self._folder, self._open = folder, False
        first = config.first_step
        self._steps = range(0) if first is None or not active else range(first, first + config.steps)

    def before(self, step: int, state: Any) -> None:
        if self._open and step not in self._steps:
            jax.block_until_ready(state)  # what was launched ahead belongs to the trace
            self._end()
        if not self._open and self._steps and step == self._steps[0]:
            self._scratch = tempfile.TemporaryDirectory()
            jax.profiler.start_trace(self._scratch.name)
            self._open = True

    def __enter__(self) -> "Tracer":
        return self

    def __exit__(self, *_: object) -> None:
        if self._open:
            self._end()

    def _end(self) -> None:
        self._open = False
        jax.profiler.stop_trace()
        with self._scratch:
            for path in Path(self._scratch.name).rglob("*"):  # the profiler itself cannot write to gs://
                if path.is_file():
                    target = self._folder / path.relative_to(self._scratch.name).as_posix()
                    target.parent.mkdir(parents=True, exist_ok=True)
                    target.write_bytes(path.read_bytes())
