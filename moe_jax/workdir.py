"""The one owner of a sweep's files: where they are, what is in them, who may change them.

W/sweep.json                  every run's name, overrides, config, counts and hash
W/runs/<name>/run.json        what is run, with what, on what; before step 0
W/runs/<name>/heartbeat.json  the newest sign of life
W/runs/<name>/attempts/<n>.json   one per start
W/runs/<name>/metrics.jsonl   one object a logged step
W/runs/<name>/checkpoints/    Orbax
W/runs/<name>/result.json     once, at the end
W/trunks/<name>/              as a run, without result.json (see jobs.py)
W/aside/<name>-<time>/        a run that was trained again, as it was before; the time in ms
"""

import time
from collections.abc import Callable, Sequence
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax import manifest as manifest_lib
from moe_jax.errors import UserError, WorkFailed
from moe_jax.manifest import Manifest, PlannedRun
from moe_jax.rundir import RunDir


class Workdir:
    """A sweep's folder, local or gs://."""

    def __init__(self, path: str):
        if not path:
            raise UserError("--workdir: give the folder of the sweep")
        self.path = epath.Path(path)

    def run_dir(self, name: str) -> RunDir:
        return RunDir(self.path / "runs" / name)

    def trunk_dir(self, name: str) -> RunDir:
        return RunDir(self.path / "trunks" / name)

    def set_run_aside(self, name: str) -> epath.Path | None:
        """Moves a run's folder aside, so that it is trained again; where to, or None where there is none."""
        folder = self.run_dir(name)
        if not folder.path.exists():
            return None
        if folder.is_locked():
            raise WorkFailed(f"--rerun={name}: a process on this machine trains it now; wait for it or stop it")
        aside = self.path / "aside" / f"{name}-{time.time_ns() // 1_000_000}"
        files.move_folder(folder.path, aside, folder.result_path.name)
        return aside

    def asides(self) -> dict[str, float]:
        """run -> when it was last set aside, in seconds since the epoch."""
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
        """sweep.json, or None. Raises DamagedFile, or UserError where another version wrote it."""
        values = self._values()
        return None if values is None else self._parsed(values)

    def _values(self) -> dict[str, Any] | None:
        try:
            return files.read_json(self.path / "sweep.json")
        except FileNotFoundError:
            return None
        except NotADirectoryError as e:
            raise UserError(f"--workdir={self.path}: is not a folder") from e

    def _parsed(self, values: dict[str, Any]) -> Manifest:
        try:
            return manifest_lib.from_json(values)
        except UserError as e:
            path = self.path / "sweep.json"
            raise files.DamagedFile(f"{path}: is damaged, or another version of moe_jax wrote it ({e})") from e

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
        """Makes `manifest` the workdir's, or extends the one that is there, and gives what then holds; of several
        processes that do so at once no run is lost.

        A run that is there already must be the same run, but may be done in another way now: on another mesh, with
        other checkpoints. With `whole` (a grid) every run that is there must be in the new grid too; without (a single
        run) it joins the others. UserError names the first run that differs. `check` gets the runs that are there and
        all that will be before anything is written, and raises where they may not be together. Without `writes` nothing
        is: another process does."""

        accepted = manifest

        def change(values: dict[str, Any] | None) -> dict[str, Any]:
            nonlocal accepted
            old, where = None if values is None else self._parsed(values), f"--workdir={self.path}"
            accepted = manifest if old is None else manifest_lib.extended(old, manifest, whole, where)
            check(() if old is None else old.runs, accepted.runs)
            return values if accepted == old else manifest_lib.to_json(accepted)

        if not writes:
            change(self._values())
            return accepted
        try:
            files.update_json(self.path / "sweep.json", change)
        except NotADirectoryError as e:
            raise UserError(f"--workdir={self.path}: is not a folder") from e
        return accepted
