"""Compiles train steps for TPU topologies, each once, in a process of its own, and keeps what was measured on disk.

A record's name is a hash of everything that it depends on: the step's shape, the placement, the topology, the versions
of JAX and libtpu, and the source code of the step. So a second plan reads the records, and a stopped one goes on.
"""

import contextlib
import dataclasses
import hashlib
import importlib.metadata
import json
import os
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Sequence
from pathlib import Path

from etils import epath

from moe_jax import errors, files
from moe_jax.config import fields
from moe_jax.config.identity import StepShape
from moe_jax.errors import UserError
from moe_jax.plan import aot
from moe_jax.plan.aot import Compiled
from moe_jax.plan.placement import Placement

# The source code that the compiled program depends on: changed code is compiled again.
_SOURCES = (
    "model/**/*.py", "plan/aot.py", "chips.py", "plan/hlo*.py", "training/step.py", "training/optimizer.py",
    "training/muon.py", "training/adafactor.py", "training/skip_step.py", "config/counts.py", "config/moe.py",
    "config/schema.py", "flops.py",
)  # fmt: skip
_PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax")


class CompileFailed(UserError):
    """The compiler failed, and not because the program is too large."""

    code = errors.FAILED


@dataclasses.dataclass(frozen=True)
class Request:
    """One step to be compiled."""

    shape: StepShape
    topology: str  # v5e:4x4
    slices: int
    placement: Placement

    def to_json(self) -> str:
        """What compile_step, the process that compiles it, reads."""
        config = self.placement.applied(self.shape.config)
        return json.dumps(
            {
                "config": fields.to_dict(config),
                "vocab_size": self.shape.vocab_size,
                "topology": self.topology,
                "slices": self.slices,
            }
        )

    @property
    def digest(self) -> str:
        """24 hex digits over everything that the compiled step depends on."""
        placed = dataclasses.replace(self.shape, config=self.placement.applied(self.shape.config))
        mesh = dataclasses.asdict(self.placement.mesh)
        parts = [placed.key, self.topology, self.slices, mesh, _versions(), _source_digest()]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()[:24]


def default_folder() -> Path:
    """Where compiled steps are kept: moe_jax/plan in the user's cache folder."""
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "moe_jax" / "plan"


class Compiles:
    """Compiled steps, read from `folder`, or made by `make` and kept there. Threads may share it."""

    def __init__(self, folder: Path, make: Callable[[Request], Compiled] | None = None):
        self._folder = folder
        self._children = _Children()
        self._make = make or self._children.compile

    def known(self, request: Request) -> Compiled | None:
        """The kept record; None where there is none, or a damaged one."""
        try:
            return Compiled.from_dict(files.read_json(epath.Path(self._path(request))))
        except (OSError, files.DamagedFile, KeyError, TypeError, ValueError):
            return None

    def get(self, request: Request) -> Compiled:
        """The step, from disk or compiled now. Raises UserError where it cannot be compiled for this topology."""
        compiled = self.known(request)
        if compiled is None:
            compiled = self._make(request)
            self._folder.mkdir(parents=True, exist_ok=True)
            files.write_json(epath.Path(self._path(request)), compiled.to_dict())
        return compiled

    def stop(self) -> None:
        """Ends the compiles that are running, and refuses new ones."""
        self._children.stop()

    def _path(self, request: Request) -> Path:
        return self._folder / f"{request.digest}.json"


class _Children:
    """Processes that compile one request each: `python -m moe_jax.cli.compile_step`."""

    def __init__(self):
        self._lock = threading.Lock()
        self._running: set[subprocess.Popen] = set()
        self._ended = threading.Event()

    def compile(self, request: Request) -> Compiled:
        with tempfile.TemporaryDirectory(prefix="moe_jax_plan_") as folder:
            out = Path(folder) / "compiled.json"
            with self._lock:
                if self._ended.is_set():
                    raise errors.Stopped("stopped")
                # A session of its own: Ctrl-C reaches us only.
                child = subprocess.Popen(
                    [sys.executable, "-m", "moe_jax.cli.compile_step", str(out)], stdin=subprocess.PIPE,
                    stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True, env=aot.environment(),
                    start_new_session=True,
                )  # fmt: skip
                self._running.add(child)
            try:
                _, said = child.communicate(request.to_json())
            finally:
                with self._lock:
                    self._running.discard(child)
            if self._ended.is_set():
                raise errors.Stopped("stopped")
            if child.returncode == errors.DONE:
                return Compiled.from_dict(json.loads(out.read_text()))
            words = _last_line(said)
            if child.returncode == errors.BAD_INPUT:
                raise UserError(words)
            raise CompileFailed(f"the compiler ended with code {child.returncode}: {words}")

    def stop(self) -> None:
        with self._lock:
            self._ended.set()
            for child in self._running:
                with contextlib.suppress(ProcessLookupError):
                    child.kill()


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1].removeprefix("moe-jax: ") if lines else "it said nothing"


def _versions() -> dict[str, str]:
    found = {}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "none"
    return found


def _source_digest() -> str:
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for path in _sources(root):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(root: Path) -> Sequence[Path]:
    return sorted(path for pattern in _SOURCES for path in root.glob(pattern))
