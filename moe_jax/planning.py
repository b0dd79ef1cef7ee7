"""A config and its store -> the runs of a sweep, entered in the workdir's manifest."""

import hashlib
from collections.abc import Sequence

from moe_jax import files, grid, jobs, windows
from moe_jax.configfile import ConfigFile
from moe_jax.data.store import MissingStore, Store, open_store, read_info
from moe_jax.errors import UserError
from moe_jax.grid import Run
from moe_jax.manifest import Manifest, PlannedRun, StoreIdentity, plan_runs
from moe_jax.submission import check_submitted
from moe_jax.workdir import Workdir


def open_configs_store(file: ConfigFile) -> Store:
    """The store that the config names. Raises UserError; for a missing one with the command that makes it, and for one
    that was made from something else than the config says."""
    try:
        store = open_store(file.config.data.store)
    except MissingStore as e:
        raise UserError(f"{e}; make it with: moe-jax prepare {file.flags}") from e
    check_made_for(file, store)
    return store


def check_made_for(file: ConfigFile, store: Store) -> None:
    """Raises UserError where the store says that it was made from another mixture or vocabulary than the config's: the
    runs would tell the wrong one."""
    data = file.config.data
    for field, asked in (("mixture", data.mixture), ("vocabulary", data.vocabulary)):
        made = store.info.settings.get(field, asked)
        if made != asked:
            raise UserError(
                f"config.data.store: {store.path} was made with {field}={made}, and config.data.{field} is {asked}; "
                f"give --config.data.{field}={made}, or another --config.data.store"
            )


def check_grid(file: ConfigFile, runs: Sequence[Run]) -> None:
    """Raises UserError where the runs of its grid would read another store than the config's, or where a value of the
    command line would be lost."""
    file.check_overrides()
    stores = {run.config.data.store for run in runs} - {file.config.data.store}
    if stores:
        raise UserError(
            f"config.data.store: a sweep has one token store, that of the config ({file.config.data.store}); the "
            f"grid's cells name {', '.join(sorted(stores))}"
        )


def enter(
    file: ConfigFile, workdir: Workdir, *, whole_grid: bool, writes: bool = True
) -> tuple[Manifest, list[Run], Store]:
    """(the workdir's manifest with the config's runs in it, those runs, the store).

    The grid with `whole_grid`, the config itself without; without `writes` another process enters it. Raises UserError
    before anything is written."""
    runs = grid.expand(file.base.to_dict(), file.cells if whole_grid else None)
    if whole_grid:
        check_grid(file, runs)
    store = open_configs_store(file)
    identity = StoreIdentity(file.config.data.store, store.info.sha256, store.info.vocabulary_size)
    planned = plan_runs(runs, identity)
    for run in runs:
        _check_data(run, store)
    manifest = Manifest(_sweep_id(workdir), file.flags, identity, planned)

    def check(old: Sequence[PlannedRun], new: Sequence[PlannedRun]) -> None:
        jobs.trunks(new)  # refuses one name for two
        check_submitted(workdir, old, new)

    accepted = workdir.accept(manifest, whole=whole_grid, writes=writes, check=check)
    return accepted, runs, store


def entered_before(file: ConfigFile, workdir: Workdir) -> Sequence[PlannedRun]:
    """The config's own run where its store is gone, as planned for the one that the workdir's sweep was made for; none
    where the store is there, or the sweep another's. Raises UserError as `enter` does where the config is refused."""
    try:
        read_info(file.config.data.store)
    except MissingStore:
        manifest = workdir.manifest()
        if manifest is not None and manifest.store.path == file.config.data.store:
            return plan_runs(grid.expand(file.base.to_dict(), None), manifest.store)
    return ()


def _sweep_id(workdir: Workdir) -> str:
    """Of the folder, however it was named: it is in the names that a cluster keeps apart."""
    return "s" + hashlib.sha256(str(files.absolute(workdir.path)).encode()).hexdigest()[:6]


def _check_data(run: Run, store: Store) -> None:
    """Raises UserError where the store does not hold what the run asks for, before anything is started."""
    try:
        windows.training_batches(run.config, store)
        windows.held_out(run.config, store)
    except UserError as e:
        raise UserError(f"{run.name}: {e}") from e


def reopen_store(manifest: Manifest) -> Store:
    """The store that a sweep was made for. Raises UserError where another one stands in its place."""
    try:
        store = open_store(manifest.store.path)
    except MissingStore as e:
        raise UserError(f"{e}; make it with: moe-jax prepare {manifest.config_flags}") from e
    if store.info.sha256 != manifest.store.sha256:
        raise UserError(
            f"{manifest.store.path}: is another token store than the one this sweep began with; put that one back, or "
            "choose another workdir"
        )
    return store
