"""Compiled train steps for TPU topologies, each made once in a process of its own and kept on disk.

A record's name is a hash of everything that it depends on: the step's shape, the placement, the topology, the versions
of JAX and libtpu, the source of what is compiled. So a second plan reads, and one that was stopped goes on.
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

from moe_jax import aot, config_fields, errors, files
from moe_jax.aot import Compiled
from moe_jax.errors import UserError
from moe_jax.placements import Placement
from moe_jax.step_shapes import StepShape

# What the compiled program comes from, beside the config: changed code is compiled again.
_SOURCES = (
    "model/*.py", "aot.py", "chips.py", "hlo*.py", "trainer.py", "optim.py", "guard.py", "sharding.py", "counts.py",
    "config.py",
)  # fmt: skip
_PACKAGES = ("jax", "jaxlib", "libtpu", "flax", "optax")


class CompileFailed(UserError):
    """The compiler itself went wrong, for another reason than memory."""

    code = errors.FAILED


@dataclasses.dataclass(frozen=True)
class Request:
    """One step to be compiled."""

    shape: StepShape
    topology: str  # v5e:4x4
    slices: int
    placement: Placement

    def to_json(self) -> str:
        """For the process that compiles it."""
        config = self.placement.applied(self.shape.config)
        return json.dumps(
            {
                "config": config_fields.to_dict(config),
                "vocabulary_size": self.shape.vocabulary_size,
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
    return Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "moe_jax" / "plan"


class Compiles:
    """Compiled steps: read from `folder` where they are kept, else made by `make`. Safe to ask from several threads."""

    def __init__(self, folder: Path, make: Callable[[Request], Compiled] | None = None):
        self._folder = folder
        self._children = _Children()
        self._make = make or self._children.compile

    def known(self, request: Request) -> Compiled | None:
        """The kept record; None where there is none that can be read."""
        try:
            return Compiled.from_dict(files.read_json(epath.Path(self._path(request))))
        except (OSError, files.DamagedFile, KeyError, TypeError, ValueError):
            return None

    def get(self, request: Request) -> Compiled:
        """Raises UserError where the step cannot be compiled for this topology."""
        compiled = self.known(request)
        if compiled is None:
            compiled = self._make(request)
            self._folder.mkdir(parents=True, exist_ok=True)
            files.write_json(epath.Path(self._path(request)), compiled.to_dict())
        return compiled

    def stop(self) -> None:
        """Ends what is compiling now, and lets nothing new begin."""
        self._children.stop()

    def _path(self, request: Request) -> Path:
        return self._folder / f"{request.digest}.json"


class _Children:
    """Processes that compile one request each: `python -m moe_jax.compile_child`."""

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
                    [sys.executable, "-m", "moe_jax.compile_child", str(out)], stdin=subprocess.PIPE,
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
    root = Path(__file__).parent
    digest = hashlib.sha256()
    for path in _sources(root):
        digest.update(path.relative_to(root).as_posix().encode() + b"\0" + path.read_bytes() + b"\0")
    return digest.hexdigest()


def _sources(root: Path) -> Sequence[Path]:
    return sorted(path for pattern in _SOURCES for path in root.glob(pattern))
