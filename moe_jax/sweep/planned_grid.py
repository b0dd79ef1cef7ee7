"""A config file -> the runs that it asks for, counted for its token store, before anything is written."""

import dataclasses
import fnmatch
import functools
from collections.abc import Callable, Sequence

from moe_jax.config.config_file import ConfigFile
from moe_jax.config.grid import Run
from moe_jax.config.schema import Config
from moe_jax.data import vocabularies, windows
from moe_jax.data.batches import Batches
from moe_jax.data.store import MissingStore, Store, open_store
from moe_jax.errors import UserError
from moe_jax.sweep import initial_weights
from moe_jax.sweep.jobs import Saving, saving
from moe_jax.sweep.manifest import PlannedRun, StoreIdentity, plan_runs


@dataclasses.dataclass(frozen=True)
class PlannedGrid:
    """The planned runs of a config file and their store. Without a store, their config hashes are meaningless."""

    runs: tuple[PlannedRun, ...]
    identity: StoreIdentity
    store: Store | None
    store_sentence: str  # describes the store; without one, says where the vocabulary's size comes from

    def only(self, patterns: Sequence[str]) -> "PlannedGrid":
        """The runs whose names match one of the patterns (`n25m-*`). Raises UserError where none does."""
        kept = tuple(run for run in self.runs if any(fnmatch.fnmatchcase(run.name, p) for p in patterns))
        if not kept:
            names = ", ".join(run.name for run in self.runs[:4]) + (", …" if len(self.runs) > 4 else "")
            raise UserError(f"--only={patterns[0]}: matches no run of the grid; its runs are {names}")
        return dataclasses.replace(self, runs=kept)

    @property
    def store_sha256(self) -> str | None:
        return None if self.store is None else self.store.info.sha256

    @functools.cached_property
    def _opened(self) -> Callable[[str], Store]:
        """open_store, once for each store of eval.stores."""
        return functools.cache(open_store)

    @functools.cached_property
    def saving(self) -> Saving:
        """What the runs' trunks save."""
        return saving(self.runs)

    def available_tokens(self, config: Config) -> int | None:
        """Tokens that the store gives this run without repetition; None without a store."""
        if self.store is None:
            return None
        data, sequences = config.data, config.train.batch_sequences
        batches = Batches(self.store, data.sequence_length, sequences, config.seed, True, windows=data.windows)
        return batches.tokens_available

    def check_data(self, run: PlannedRun) -> None:
        """Raises UserError where the store does not hold what the run asks for; nothing is known without a store."""
        if self.store is not None:
            windows.training_batches(run.config, self.store)
            windows.held_out(run.config, self.store)
            windows.other_held_out(run.config, self.store, self._opened)

    def refusal(self, run: PlannedRun) -> str | None:
        """Why `sweep` would refuse to start the run on this store; None where it would start it."""
        try:
            self.check_data(run)
        except UserError as e:
            return str(e)
        return None


def plan_grid(file: ConfigFile, *, whole_grid: bool = True, store_required: bool = True) -> PlannedGrid:
    """The runs of a config file's grid; with `whole_grid=False`, the one run of the config itself.

    Where the store is missing, the runs are counted for the vocabulary that the config names, unless
    `store_required`. Raises UserError for bad cells, another store in a cell, or a store that is missing or was made
    from other text."""
    path, missing, store = file.config.data.store, None, None
    try:
        store = open_store(path)
        file = _named_as(file, store)
    except MissingStore as e:
        missing = e
    runs = initial_weights.with_digests(file.runs(whole_grid=whole_grid))
    if whole_grid:
        _check_grid(file, runs)
    if missing is not None:
        if store_required:
            raise UserError(f"{missing}; make it with: moe-jax prepare {file.flags}") from missing
        V, source = vocabulary(file)
        identity = StoreIdentity(path, "", V)
        sentence = f"{missing}: planned without it, with {V:,} token ids ({source})"
        return PlannedGrid(plan_runs(runs, identity, file.rules), identity, None, sentence)
    _check_store_matches(file, store)
    info = store.info
    identity = StoreIdentity(path, info.sha256, info.vocab_size, train_tokens=info.tokens["train"])
    sentence = f"token store {path}: {info.tokens['train']:,} tokens to train on, {info.vocab_size:,} token ids"
    return PlannedGrid(plan_runs(runs, identity, file.rules), identity, store, sentence)


def _named_as(file: ConfigFile, store: Store) -> ConfigFile:
    """The file with the mixture and the vocabulary that the store was made from, where the command line names the store
    and not these: `--config.data.store=stores/mine` is all that a store of one's own needs."""
    given = {override.partition("=")[0] for override in file.overrides}
    if "--config.data.store" not in given:
        return file
    made = {f: store.info.settings[f] for f in ("mixture", "vocabulary") if f in store.info.settings}
    return file.with_overrides(
        *(f"--config.data.{f}={value}" for f, value in made.items() if f"--config.data.{f}" not in given)
    )


def _check_store_matches(file: ConfigFile, store: Store) -> None:
    """Raises UserError where the store was made from another mixture or vocabulary than the config names: the runs'
    records would name the wrong one."""
    data = file.config.data
    for field, asked in (("mixture", data.mixture), ("vocabulary", data.vocabulary)):
        made = store.info.settings.get(field, asked)
        if made != asked:
            raise UserError(
                f"config.data.store: {store.path} was made with {field}={made}, and config.data.{field} is {asked}; "
                f"give --config.data.{field}={made}, or another --config.data.store"
            )


def _check_grid(file: ConfigFile, runs: Sequence[Run]) -> None:
    """Raises UserError where cells of the grid name another store than the config's, or where every cell replaces a
    value that was given on the command line."""
    file.check_overrides()
    stores = {run.config.data.store for run in runs} - {file.config.data.store}
    if stores:
        raise UserError(
            f"config.data.store: a sweep has one token store, that of the config ({file.config.data.store}); the "
            f"grid's cells name {', '.join(sorted(stores))}"
        )


def vocabulary(file: ConfigFile) -> tuple[int, str]:
    """(number of token ids, the field that gives it) without a store. Raises UserError where no field does."""
    if V := file.config.model.vocab_size:
        return V, "config.model.vocab_size"
    spec = file.config.data.vocabulary
    if V := vocabularies.bpe_size(spec):
        return V, f"config.data.vocabulary = {spec!r}"
    try:
        return vocabularies.load(spec).size, f"config.data.vocabulary = {spec!r}"
    except UserError as e:
        raise UserError(
            f"there is no token store at {file.config.data.store} yet, and {e}: so the number of token ids is not "
            "known; give it with --config.model.vocab_size=N (GPT-2's tokenizer has 50257)"
        ) from e
