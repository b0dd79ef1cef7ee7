"""A config's grid before its token store exists: runs, counts, and what each would find in the store."""

import dataclasses
import fnmatch
from collections.abc import Sequence

from moe_jax import grid, jobs, planning, windows
from moe_jax.config import Config
from moe_jax.configfile import ConfigFile
from moe_jax.data import store as store_lib
from moe_jax.data import vocabularies
from moe_jax.data.batches import Batches
from moe_jax.data.store import MissingStore, Store
from moe_jax.errors import UserError
from moe_jax.jobs import Saving
from moe_jax.manifest import PlannedRun, StoreIdentity, plan_runs

DECAY_FRACTION = 0.1  # (ours) of the wsd that a cosine grid is compared with


@dataclasses.dataclass(frozen=True)
class Outlook:
    """The planned runs. Without a store their config_hash means nothing."""

    runs: tuple[PlannedRun, ...]
    store: Store | None
    sentence: str  # of the store, or where the vocabulary's size comes from without it

    def only(self, patterns: Sequence[str]) -> "Outlook":
        """The runs whose names match one of the patterns (`n25m-*`). Raises UserError where none does."""
        kept = tuple(run for run in self.runs if any(fnmatch.fnmatchcase(run.name, p) for p in patterns))
        if not kept:
            names = ", ".join(run.name for run in self.runs[:4])
            raise UserError(f"--only={patterns[0]}: no run of the grid is called so; it has {names}, …")
        return dataclasses.replace(self, runs=kept)

    @property
    def store_sha256(self) -> str | None:
        return None if self.store is None else self.store.info.sha256

    def available_tokens(self, config: Config) -> int | None:
        """Tokens that the store gives this run without repetition; None without a store."""
        if self.store is None:
            return None
        data, sequences = config.data, config.train.batch_sequences
        return Batches(
            self.store, data.sequence_length, sequences, config.seed, True, windows=data.windows
        ).tokens_available

    def refusal(self, run: PlannedRun) -> str | None:
        """Why sweep would not begin the run on this store; None where it would."""
        if self.store is None:
            return None
        try:
            windows.training_batches(run.config, self.store)
            windows.held_out(run.config, self.store)
        except UserError as e:
            return str(e)
        return None


def of(file: ConfigFile) -> Outlook:
    """The grid of a config, or its one run. Raises UserError; where nothing says how large the vocabulary is, too."""
    runs = grid.expand(file.base.to_dict(), file.cells)
    planning.check_grid(file, runs)
    path = file.config.data.store
    try:
        store = store_lib.open_store(path)
    except MissingStore as e:
        V, source = _vocabulary(file)
        identity = StoreIdentity(path, "", V)
        return Outlook(plan_runs(runs, identity), None, f"{e}: planned without it, with {V:,} token ids ({source})")
    planning.check_made_for(file, store)
    info = store.info
    identity = StoreIdentity(path, info.sha256, info.vocabulary_size)
    sentence = f"token store {path}: {info.tokens['train']:,} tokens to train on, {info.vocabulary_size:,} token ids"
    return Outlook(plan_runs(runs, identity), store, sentence)


def _vocabulary(file: ConfigFile) -> tuple[int, str]:
    """(number of token ids, who says so) without a store."""
    if V := file.config.model.vocabulary_size:
        return V, "config.model.vocabulary_size"
    spec = file.config.data.vocabulary
    if V := vocabularies.bpe_size(spec):
        return V, f"config.data.vocabulary = {spec!r}"
    try:
        return vocabularies.load(spec).size, f"config.data.vocabulary = {spec!r}"
    except UserError as e:
        raise UserError(
            f"there is no token store at {file.config.data.store} yet, and {e}: so the number of token ids is not "
            "known; say it with --config.model.vocabulary_size=N (GPT-2's tokenizer has 50257)"
        ) from e


def trunk_saving(runs: tuple[PlannedRun, ...]) -> Saving | None:
    """What trunks save in this grid, with its own wsd, or as if it had one; None where no runs differ in D alone.

    A grid with another schedule is taken with wsd: its shortest warm-up for all, the last tenth of each D a decay."""
    if any(run.config.optim.schedule != "wsd" for run in runs):
        warmup = min(run.config.warmup_steps * run.config.batch_tokens for run in runs)
        try:
            runs = tuple(dataclasses.replace(run, config=_with_wsd(run.config, warmup)) for run in runs)
        except UserError:  # too short for a warm-up and a decay
            return None
    saving = jobs.saving(runs)
    return saving if saving.trunks else None


def _with_wsd(config: Config, warmup_tokens: int) -> Config:
    optim = dataclasses.replace(
        config.optim, schedule="wsd", warmup_tokens=warmup_tokens, warmup_fraction=None, decay_fraction=DECAY_FRACTION
    )
    return dataclasses.replace(config, optim=optim)
