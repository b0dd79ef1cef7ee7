"""A sweep's folder W, local or gs://, and the paths of all files in it.

W/sweep.json                  the manifest: every run's name, overrides, config, counts and hash
W/runs/<name>/run.json        config, versions and devices; written before step 0
W/runs/<name>/heartbeat.json  how far the run is; rewritten every 30 s
W/runs/<name>/attempts/<n>.json   one a start
W/runs/<name>/metrics.jsonl   one object a logged step
W/runs/<name>/checkpoints/    Orbax
W/runs/<name>/result.json     written once, at the end
W/trunks/<name>/              as a run, without result.json (see jobs.py)
W/aside/<name>-<time>/        a run's old folder, where the run is trained again; the time is in ms
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax.errors import UserError, WorkFailed
from moe_jax.sweep import manifest as manifest_lib
from moe_jax.sweep.manifest import Manifest, PlannedRun
from moe_jax.sweep.rundir import RunDir


class Workdir:
    """A sweep's folder, local or gs://, which need not exist yet. Raises UserError for an empty path."""

    def __init__(self, path: str):
        if not path:
            raise UserError("--workdir: give the folder of the sweep")
        if not _is_utf8(path):
            raise UserError(f"--workdir={path!a}: is not UTF-8, as the files that name it must be; choose another name")
        self.path = epath.Path(path)
        self._manifest_path = self.path / "sweep.json"

    def run_dir(self, name: str) -> RunDir:
        return RunDir(self.path / "runs" / name)

    def trunk_dir(self, name: str) -> RunDir:
        return RunDir(self.path / "trunks" / name)

    def set_run_aside(self, name: str) -> epath.Path | None:
        """Moves a run's folder aside, so that the run is trained again. Returns its new path, or None where it had no
        folder. Raises WorkFailed where a process on this machine is training the run."""
        folder = self.run_dir(name)
        if not folder.path.exists():
            return None
        if folder.is_locked():
            raise WorkFailed(f"--rerun={name}: a process on this machine is training it; wait for it or stop it")
        aside = self.path / "aside" / f"{name}-{time.time_ns() // 1_000_000}"
        files.move_folder(folder.path, aside, folder.result_path.name)
        return aside

    def asides(self) -> dict[str, float]:
        """run -> the time when it was last set aside, in seconds since the epoch."""
        folder, newest = self.path / "aside", {}
        for path in folder.iterdir() if folder.exists() else ():
            name, _, time_ms = path.name.rpartition("-")
            if time_ms.isdecimal():
                newest[name] = max(newest.get(name, 0.0), int(time_ms) / 1000)
        return newest

    def put_back(self, aside: epath.Path, name: str) -> None:
        """Undoes set_run_aside."""
        folder = self.run_dir(name)
        files.move_folder(aside, folder.path, folder.result_path.name)

    def manifest(self) -> Manifest | None:
        """sweep.json, or None where there is none. Raises DamagedFile, also where another version wrote it."""
        values = self._values()
        return None if values is None else self._parsed(values)

    def _values(self) -> dict[str, Any] | None:
        try:
            return files.read_json(self._manifest_path)
        except FileNotFoundError:
            return None
        except NotADirectoryError as e:
            raise UserError(f"--workdir={self.path}: is not a folder") from e

    def _parsed(self, values: dict[str, Any]) -> Manifest:
        try:
            return manifest_lib.from_json(files.unsealed(self._manifest_path, values))
        except files.DamagedFile:
            raise
        except UserError as e:
            raise files.DamagedFile(
                f"{self._manifest_path}: is damaged, or another version of moe_jax wrote it ({e})"
            ) from e

    def existing_manifest(self) -> Manifest:
        """sweep.json. Raises UserError where there is none."""
        manifest = self.manifest()
        if manifest is None:
            raise UserError(f"--workdir={self.path}: holds no sweep (no sweep.json); moe-jax sweep or train makes one")
        return manifest

    def accept(
        self, manifest: Manifest, *, whole: bool, writes: bool = True,
        check: Callable[[Sequence[PlannedRun], Sequence[PlannedRun]], Any] = lambda old, new: None,
    ) -> Manifest:  # fmt: skip
        """Writes `manifest` to the workdir, or extends the one that is there, and returns the result. Several processes
        may do so at once, and no run is lost.

        A run that is there already must have the same config hash; how it is trained may change (mesh, checkpoints).
        With `whole` (a grid), every run that is there must be in the new grid too; without (a single run), the run is
        added. Raises UserError that names the first run that differs. `check(old runs, all runs)` is called before
        anything is written, and raises where these runs may not be in one sweep. With `writes=False` nothing is
        written: another process does that."""

        accepted = manifest

        def change(values: dict[str, Any] | None) -> dict[str, Any]:
            nonlocal accepted
            old, where = None if values is None else self._parsed(values), f"--workdir={self.path}"
            accepted = manifest if old is None else manifest_lib.extended(old, manifest, whole, where)
            check(() if old is None else old.runs, accepted.runs)
            return values if accepted == old else files.sealed(manifest_lib.to_json(accepted))

        if not writes:
            change(self._values())
            return accepted
        try:
            files.update_json(self._manifest_path, change)
        except NotADirectoryError as e:
            raise UserError(f"--workdir={self.path}: is not a folder") from e
        except FileNotFoundError as e:  # /proc/x
            raise UserError(f"--workdir={self.path}: no folder can be made there; choose another place") from e
        return accepted


def _is_utf8(path: str) -> bool:
    """Python holds other bytes of a file's name as surrogates, which cannot be written."""
    try:
        path.encode()
    except UnicodeEncodeError:
        return False
    return True
