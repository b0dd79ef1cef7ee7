"""The one owner of a sweep's files: where they are, what is in them, who may change them.

W/sweep.json                  every run's name, overrides, config, counts and hash
W/runs/<name>/run.json        what is run, with what, on what; before step 0
W/runs/<name>/heartbeat.json  the newest sign of life
W/runs/<name>/attempts/<n>.json   one per start
W/runs/<name>/metrics.jsonl   one object a logged step
W/runs/<name>/checkpoints/    Orbax
W/runs/<name>/result.json     once, at the end
W/trunks/<name>/              as a run, without result.json (see jobs.py)
"""

import dataclasses
import time
from typing import Any

from etils import epath

from moe_jax import config as config_lib
from moe_jax import files
from moe_jax import manifest as manifest_lib
from moe_jax.errors import UserError, WorkFailed
from moe_jax.manifest import Manifest
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
        aside = self.path / "aside" / f"{name}-{int(time.time())}"
        aside.parent.mkdir(parents=True, exist_ok=True)
        return folder.path.rename(aside)

    def manifest(self) -> Manifest | None:
        """sweep.json, or None. Raises DamagedFile, or UserError where another version wrote it."""
        path = self.path / "sweep.json"
        try:
            values = files.read_json(path)
        except FileNotFoundError:
            return None
        except NotADirectoryError as e:
            raise UserError(f"--workdir={self.path}: is not a folder") from e
        try:
            return manifest_lib.from_json(values)
        except UserError as e:
            raise files.DamagedFile(f"{path}: is damaged, or another version of moe_jax wrote it ({e})") from e

    def existing_manifest(self) -> Manifest:
        """sweep.json. Raises UserError where there is none."""
        manifest = self.manifest()
        if manifest is None:
            raise UserError(f"--workdir={self.path}: holds no sweep (no sweep.json); moe-jax sweep or train makes one")
        return manifest

    def accept(self, manifest: Manifest, *, whole: bool, writes: bool = True) -> Manifest:
        """Makes `manifest` the workdir's, or extends the one that is there; gives what then holds.

        A run that is there already must be the same run, but may be done in another way now: on another mesh, with
        other checkpoints. With `whole` (a grid) every run that is there must be in the
        new grid too; without (a single run) it joins the others. UserError names the first run that differs.
        Without `writes` nothing is written: another process does."""
        old = self.manifest()
        if old is None:
            accepted = manifest
        else:
            if old.store.sha256 != manifest.store.sha256:
                raise UserError(
                    f"--workdir={self.path}: holds a sweep on another token store ({old.store.path}); choose another"
                )
            new = {run.name: run for run in manifest.runs}
            for run in old.runs:
                if run.name in new and new[run.name].config_hash != run.config_hash:
                    raise UserError(
                        f"--workdir={self.path}: holds a sweep whose run {run.name} has another config"
                        f"{_first_difference(run.config, new[run.name].config)}; choose another workdir"
                    )
                if whole and run.name not in new:
                    raise UserError(
                        f"--workdir={self.path}: holds a sweep whose run {run.name} is not in this grid; "
                        "extend its grid, or choose another workdir"
                    )
            kept = tuple(dataclasses.replace(r, config=new.pop(r.name, r).config) for r in old.runs)
            accepted = dataclasses.replace(old, runs=kept + tuple(new.values()))
        if accepted == old or not writes:
            return accepted
        self.path.mkdir(parents=True, exist_ok=True)
        files.write_json(self.path / "sweep.json", manifest_lib.to_json(accepted))
        return accepted


def _first_difference(a: config_lib.Config, b: config_lib.Config) -> str:
    def flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
        out = {}
        for key, value in values.items():
            out |= flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {prefix + key: value}
        return out

    old, new = flat(config_lib.to_dict(a)), flat(config_lib.to_dict(b))
    for field in old | new:
        if old.get(field) != new.get(field):
            return f" (config.{field} = {old.get(field)!r} there, {new.get(field)!r} here)"
    return " (the vocabulary differs)"
