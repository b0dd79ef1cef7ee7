"""Writes the runs of a config file into a workdir's manifest, and reopens the store that a manifest names."""

import hashlib
from collections.abc import Sequence

from moe_jax import files
from moe_jax.config.config_file import ConfigFile
from moe_jax.data.store import MissingStore, Store, open_store, read_info
from moe_jax.errors import UserError
from moe_jax.sweep import initial_weights, jobs
from moe_jax.sweep.manifest import Manifest, PlannedRun, check_routers, plan_runs
from moe_jax.sweep.planned_grid import plan_grid
from moe_jax.sweep.submission_records import check_submitted
from moe_jax.sweep.workdir import Workdir


def enter(
    file: ConfigFile, workdir: Workdir, *, whole_grid: bool, writes: bool = True, store_required: bool = True
) -> tuple[Manifest, tuple[PlannedRun, ...], Store | None]:
    """Enters the config's runs in the workdir's manifest. Returns (the manifest, those runs, their store).

    With `whole_grid` these are the runs of its grid, else the config itself. With `writes=False` the manifest is
    returned but not written: another process writes it, or nobody does. The store is None where it is missing and not
    `store_required`. Raises UserError before anything is written."""
    grid = plan_grid(file, whole_grid=whole_grid, store_required=store_required)
    for run in grid.runs:
        try:
            grid.check_data(run)
        except UserError as e:
            raise UserError(f"{run.name}: {e}") from e
    manifest = Manifest(_sweep_id(workdir), file.flags, grid.identity, grid.runs)

    def check(old: Sequence[PlannedRun], new: Sequence[PlannedRun]) -> None:
        jobs.trunks(new)  # raises where two trunks would have one name
        check_submitted(workdir, old, new)

    accepted = workdir.accept(manifest, whole=whole_grid, writes=writes, check=check)
    return accepted, grid.runs, grid.store


def entered_before(file: ConfigFile, workdir: Workdir) -> Sequence[PlannedRun]:
    """The config's own run, as planned for the store of the workdir's sweep, where that store is missing now.

    Empty where the store is there, or where the sweep was made for another one. Raises UserError as `enter` does where
    the config is refused."""
    try:
        read_info(file.config.data.store)
    except MissingStore:
        manifest = workdir.manifest()
        if manifest is not None and manifest.store.path == file.config.data.store:
            return plan_runs(initial_weights.with_digests(file.runs(whole_grid=False)), manifest.store, file.rules)
    return ()


def reopen_store(manifest: Manifest) -> Store:
    """The store that a sweep was made for.

    Raises UserError where it is missing or was replaced, or where the sweep's own router has changed."""
    check_routers(manifest)
    try:
        store = open_store(manifest.store.path)
    except MissingStore as e:
        raise UserError(f"{e}; make it with: moe-jax prepare {manifest.config_flags}") from e
    if store.info.sha256 != manifest.store.sha256:
        raise UserError(
            f"{manifest.store.path}: is not the token store that this sweep began with; put that one back, or choose "
            "another workdir"
        )
    return store


def _sweep_id(workdir: Workdir) -> str:
    """The sweep's id, which begins the names of its jobs in a cluster; the same for every spelling of the folder's
    path."""
    return "s" + hashlib.sha256(str(files.absolute(workdir.path)).encode()).hexdigest()[:6]
