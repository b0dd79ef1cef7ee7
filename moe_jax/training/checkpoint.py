"""Checkpoints: Orbax, asynchronous, and a digest of every file, without which a step does not count.

Orbax does not notice a flipped byte in array data, so after each commit SHA-256 of all files is written to
`<step>.sha256.json`: the last thing that is written of a step and the first that is read. A step whose files do not
match, or that was left half-written, is skipped with a warning and the one before is used. Each of several processes
reads back and hashes its share of the files.
"""

import errno
import hashlib
import json
import logging
import os
import shutil
import sys
import threading
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import jax
import orbax.checkpoint as ocp
from etils import epath

from moe_jax import files
from moe_jax.training import processes
from moe_jax.training.step import TrainState

_HASHERS = 8  # files that a process reads at a time: object stores answer slowly


class Checkpoints:
    """The checkpoints of the run with this config hash: the newest `keep`, and the steps in `always`. `say` gets one
    sentence for whatever is skipped, another run's checkpoints too."""

    def __init__(
        self, folder: epath.Path, config_hash: str, keep: int, say: Callable[[str], None] = print,
        always: Collection[int] = (),
    ):  # fmt: skip
        self._config_hash = config_hash
        self._folder, self._keep, self._say = files.absolute(folder), keep, say  # Orbax refuses relative paths
        self._always = frozenset(always)
        self._orbax = ocp.AsyncCheckpointer(ocp.StandardCheckpointHandler())
        self._finishing: threading.Thread | None = None
        self._error: BaseException | None = None

    def steps(self) -> list[int]:
        """Steps that have a digest, oldest first."""
        if not self._folder.exists():
            return []
        names = (p.name for p in self._folder.iterdir())
        return sorted(int(n.removesuffix(".sha256.json")) for n in names if _is_digest(n))

    def _without_digest(self) -> list[int]:
        """Steps whose save did not end, or whose digest is gone, newest first."""
        if not self._folder.exists():
            return []
        saved = {int(p.name) for p in self._folder.iterdir() if p.name.isdecimal()}
        return sorted(saved - set(self.steps()), reverse=True)

    def save(self, state: TrainState, step: int, notes: Mapping[str, Any] | None = None) -> None:
        """Begins to save; returns when the state is copied and may be donated. `notes` stand beside the digests.
        Raises OSError of the save before."""
        self.wait()
        if processes.is_first():
            self._folder.mkdir(parents=True, exist_ok=True)
            self._remove(step)  # a damaged one of the same step
        processes.together("the step's place is free")  # Orbax refuses a step that any process finds there
        try:
            self._orbax.save(self._folder / str(step), args=ocp.args.StandardSave(state))
        except Exception as e:
            raise self._as_os_error(e) from e
        self._finishing = threading.Thread(target=self._finish, args=(step, notes or {}), name="checkpoint")
        self._finishing.start()

    def wait(self) -> None:
        """Waits until the last save is on disk with its digest. Raises its error."""
        if self._finishing is not None:
            self._finishing.join()
            self._finishing = None
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def restore(self, abstract_state: TrainState, at_most: int | None = None) -> tuple[TrainState, int] | None:
        """(state, step) of the newest step (not above `at_most`) that is whole, laid out as `abstract_state` says; None
        where there is none. All processes look and restore together."""
        steps = [step for step in reversed(self._steps_of_first()) if at_most is None or step <= at_most]
        if processes.is_first():
            for step in self._without_digest():
                if step > max(steps, default=-1) and (at_most is None or step <= at_most):
                    self._say(
                        f"checkpoint {self._folder / str(step)} is skipped: it has no digest, its save had not ended"
                    )
        for step in steps:
            wrong = self._what_is_wrong(step)
            if not processes.first_says(wrong is not None):
                path = self._folder / str(step)
                return self._orbax.restore(path, args=ocp.args.StandardRestore(abstract_state)), step
            if processes.is_first():
                next_one = "; the one before is tried" if step != steps[-1] else ""
                self._say(f"checkpoint {self._folder / str(step)} is skipped: {wrong}{next_one}")
        return None

    def forget_after(self, step: int) -> bool:
        """Takes all newer steps off the list. Returns whether there were any. They are damaged or are trained again,
        and would be kept instead of those that are saved from here on."""
        newer = [s for s in self._steps_of_first() if s > step]
        if processes.is_first():
            for s in newer:
                self._digest_path(s).unlink(missing_ok=True)
        return bool(newer)

    def _steps_of_first(self) -> list[int]:
        """The steps that the first process sees: another's view of a shared disk may be older."""
        steps = self.steps() if processes.is_first() else []
        n = processes.first_says(len(steps))
        return [processes.first_says(steps[i] if steps else 0) for i in range(n)]

    def close(self) -> None:
        self.wait()
        self._orbax.close()

    def _finish(self, step: int, notes: Mapping[str, Any]) -> None:
        try:
            self._orbax.wait_until_finished()  # on every process: Orbax has committed by then
            digests = self._digests(step)
            if processes.is_first():
                stated = {"step": step, "config_hash": self._config_hash, **notes, "files": digests}
                files.write_sealed(self._digest_path(step), stated)
                self._retire()
        except Exception as e:  # raised by wait(), in the thread that trains
            self._error = self._as_os_error(e)

    def _as_os_error(self, e: Exception) -> Exception:
        """TensorStore's ValueError for a full disk and the like, as the OSError that it was."""
        for code in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES):
            if os.strerror(code) in str(e):
                return OSError(code, os.strerror(code), str(self._folder))
        return e

    def _digest_path(self, step: int) -> epath.Path:
        return self._folder / f"{step}.sha256.json"

    def _digests(self, step: int) -> dict[str, str]:
        """SHA-256 of every file of the step, at the first process; each process hashes its share."""
        root = self._folder / str(step)
        names = sorted(path.relative_to(root).as_posix() for path in _files_under(root))
        share = names[jax.process_index() :: jax.process_count()]
        with ThreadPoolExecutor(_HASHERS) as pool:
            digests = dict(zip(share, pool.map(lambda name: _sha256(root / name), share), strict=True))
        parts = processes.to_first(f"digests of {root}", json.dumps(digests))
        return {name: digest for part in parts for name, digest in json.loads(part).items()}

    def _what_is_wrong(self, step: int) -> str | None:
        """What is wrong with the files of a step, None for nothing. Only the first process gets the answer; the others
        hash their share."""
        if not processes.first_says((self._folder / str(step)).is_dir()):
            return "its files are gone"
        found = self._digests(step)
        if not processes.is_first():
            return None
        try:
            notes = files.read_sealed(self._digest_path(step))
        except files.UnreadableFile:  # the step may be sound, and skipping it would remove it
            raise
        except files.DamagedFile:
            notes = {}
        stated = notes.get("files")
        if not isinstance(stated, dict):
            return "its digest file is damaged"
        if notes.get("step") != step:  # somebody renamed it
            return f"it was saved as step {notes.get('step')!r:.20}"
        if notes.get("config_hash") != self._config_hash:
            return f"it is of another run (config hash {notes.get('config_hash')!r:.20})"
        for name in sorted(stated.keys() | found.keys()):
            if stated.get(name) != found.get(name):
                what = "is missing" if name not in found else "was not there" if name not in stated else "has changed"
                return f"{name} {what}"
        return None

    def _retire(self) -> None:
        """Removes all but the newest `keep` steps and those to be kept always, and what saves that were killed have
        left."""
        steps = self.steps()
        kept = {str(s) for s in steps if s in self._always or s in steps[-self._keep :]}
        for step in steps:
            if str(step) not in kept:
                self._remove(step)
        for path in self._folder.iterdir():
            if path.is_dir() and path.name not in kept:
                _remove_tree(path)

    def _remove(self, step: int) -> None:
        self._digest_path(step).unlink(missing_ok=True)  # first: without it the rest does not count
        if (path := self._folder / str(step)).exists():
            _remove_tree(path)


def say_errors_once() -> None:
    """Silences Orbax's log of errors and TensorStore's later tracebacks: a verb prints what Checkpoints raises.

    When a save fails, TensorStore's callbacks find Orbax's event loop closed and print a traceback each (seen on a full
    disk with orbax-checkpoint 0.12.8, tensorstore 0.1.86)."""
    for noisy in ("absl", "asyncio"):
        logging.getLogger(noisy).setLevel(logging.CRITICAL)
    hook = sys.unraisablehook

    def without_afterthoughts(unraisable: Any) -> None:
        if not (unraisable.exc_type is RuntimeError and str(unraisable.exc_value) == "Event loop is closed"):
            hook(unraisable)

    sys.unraisablehook = without_afterthoughts


def _is_digest(name: str) -> bool:
    return name.endswith(".sha256.json") and name.removesuffix(".sha256.json").isdecimal()


def _files_under(path: epath.Path) -> list[epath.Path]:
    found = []
    for child in path.iterdir():
        is_folder = child.is_dir() and not os.path.islink(child)  # we write no links; one may lead back here
        found += _files_under(child) if is_folder else [child]
    return found


def _remove_tree(path: epath.Path) -> None:
    if files.is_remote(path):
        path.rmtree()
    elif path.is_file():  # where a step's folder belongs
        path.unlink()
    else:
        shutil.rmtree(path, ignore_errors=True)


def _sha256(path: epath.Path) -> str:
    if not (files.is_remote(path) or os.path.isfile(path)):  # a pipe would never end
        return ""
    digest = hashlib.sha256()
    with path.open("rb") as f:
        while chunk := f.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()
