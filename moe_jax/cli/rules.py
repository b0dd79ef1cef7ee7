"""`--rule LAW`: a law sets the learning rate, or the batch, of every run of a config.

The law is resolved here, before the grid is expanded: the number enters each config and its hash, and the law's name
and SHA-256 its run.json. So config/ knows no law, and a sweep that has begun needs none."""

import argparse
import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_jax.config import config_file, counts
from moe_jax.config.config_file import ConfigFile
from moe_jax.config.schema import Config
from moe_jax.errors import UserError
from moe_jax.text import count

if TYPE_CHECKING:
    from moe_jax.laws import Law

_DIGITS = 3  # of a rate: the last bits of a sum of powers differ between machines, and so would the hash
_FIELDS = {"batch_tokens": "train.batch_sequences", "learning_rate": "optim.learning_rate"}  # a rate may need the batch
# Columns that a law does not hold at other values of, worth a sentence where they differ.
_SAID = ("optimizer", "schedule", "batch_tokens", "expansion_rate", "router", "sequence_length")


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags of a verb that takes a config."""
    parser.add_argument(
        "--rule", action="append", default=[], metavar="LAW",
        help="set the learning rate (or batch) of every run by a law: step_law_lr.json of `fit`, or a published one, "
        "step_law_lr; its number enters the config, its SHA-256 run.json",
    )  # fmt: skip
    parser.add_argument("--extrapolate", action="store_true", help="accept runs outside the range of the rule's own")


def load(config_args: Sequence[str], flags: argparse.Namespace, *, whole_grid: bool = True) -> ConfigFile:
    """The config file of the flags with its rules applied; what they set is said in `ConfigFile.said`.

    Raises UserError for a law of losses, two rules for one field, a field that the grid or the command line sets as
    well, and, unless --extrapolate is given, for runs outside the law's."""
    file = config_file.load(config_args)
    if not flags.rule:
        if flags.extrapolate:
            raise UserError("--extrapolate: concerns --rule, which is not given")
        return file
    laws = _laws(flags.rule)
    for quantity, field in _FIELDS.items():
        if quantity in laws:
            file = _Application(file, field, *laws[quantity], whole_grid).apply(flags.extrapolate)
    return file


def _laws(texts: Sequence[str]) -> "dict[str, tuple[Law, dict[str, str]]]":
    """quantity -> (its law, what run.json says of it)."""
    from moe_jax import laws

    found = {}
    for text in texts:
        law = _find(text)
        if law.form.quantity == laws.LOSS:
            raise UserError(f"--rule={text}: {law.name} gives a loss; a rule needs a law of learning rates or batches")
        if law.form.quantity in found:
            raise UserError(f"--rule={text}: another --rule sets the {law.form.quantity} already")
        source, sha256 = _origin(text, law)
        found[law.form.quantity] = law, {"law": law.name, "source": source, "sha256": sha256}
    return found


def _find(text: str) -> "Law":
    """The law of a --rule. Raises UserError, which names this flag, where there is none."""
    from moe_jax import laws

    try:
        return laws.find(text, quantity=None)
    except UserError as e:
        said = str(e).replace("--law ", "--rule=", 1)  # the flag of the other verbs
        raise UserError(said if "--rule=" in said else f"--rule={text}: {said}") from e


def _origin(text: str, law: "Law") -> tuple[str, str]:
    """(file, or name and published set, of a law; the SHA-256 of the file, or of the formula and coefficients)."""
    from etils import epath

    from moe_jax import files
    from moe_jax.laws import user_file

    if text.endswith(".json"):
        return text, hashlib.sha256(files.read_file(epath.Path(user_file.declare(text)))).hexdigest()
    where = next(k for k, values in law.form.published.items() if values == law.coefficients)
    published = {"law": law.name, "formula": law.form.formula, "coefficients": dict(law.coefficients)}
    return f"{law.name}:{where}", hashlib.sha256(json.dumps(published, sort_keys=True).encode()).hexdigest()


class _Application:
    """One law set as the rule of one field."""

    def __init__(self, file: ConfigFile, field: str, law: "Law", rule: dict[str, str], whole_grid: bool):
        self.file, self.field, self.law, self.rule, self.whole_grid = file, field, law, rule, whole_grid
        self.vocab_size = _vocab_size(file)
        self.values: list[float] = []
        self.beyond: list[dict[str, float]] = []  # of each run outside the law's: "above in tokens" -> how many times
        self.differing: dict[str, set] = {}  # column that the law's runs share -> other values here

    def apply(self, extrapolate: bool) -> ConfigFile:
        """The file with the rule. Raises UserError for runs outside the law's, unless `extrapolate`."""
        file = self.file.with_rule(self.field, self._value, self.rule, whole_grid=self.whole_grid)
        said = [f"{self.field} by {self.law.name} ({self.rule['source']}): {_span(self.values)}"]
        if self.beyond:
            how_far = self._how_far()
            if not extrapolate:
                raise UserError(f"--rule={self.rule['source']}: {how_far}; --extrapolate takes its values all the same")
            said.append(how_far)
        elif not self.law.data.range:
            said.append(f"the range of the runs behind {self.law.name} is not known here")
        for column, values in self.differing.items():
            here, there = ", ".join(sorted(map(str, values))), self.law.data.constants[column]
            said.append(f"{self.law.name} was fitted at {column} {there}, and the runs have {here}")
        return dataclasses.replace(file, said=(*self.file.said, *said))

    def _value(self, config: Config) -> float | int:
        """The field's value in a config, by the law."""
        columns = _columns(config, self.vocab_size)
        for symbol, column in self.law.form.columns.items():
            source = self.law.data.columns.get(symbol, column)
            if columns.get(source) is None:
                raise UserError(
                    f"--rule={self.rule['source']}: {symbol} of {self.law.name} is {source}, which this config does not"
                    " have; take another law, or fit it over columns of results.csv"
                )
        self._note_range(columns)
        best = float(self.law.value_at(columns))
        value = _rounded(config, self.law.form.quantity, best)
        self.values.append(value)
        return value

    def _note_range(self, columns: dict) -> None:
        far = {}
        for column, outside in self.law.outside(columns).items():
            if outside:
                low, high = self.law.data.range[column]
                value = columns[column]
                far |= {f"above in {column}": value / high} if value > high else {f"below in {column}": low / value}
        if far:
            self.beyond.append(far)
        for column in _SAID:
            there = self.law.data.constants.get(column)
            if there is not None and columns.get(column) not in (None, there):
                self.differing.setdefault(column, set()).add(columns[column])

    def _how_far(self) -> str:
        """`6 of 8 runs lie outside those of the law: up to 12 times above in tokens, …`"""
        most: dict[str, float] = {}
        for far in self.beyond:
            most |= {where: max(times, most.get(where, 0)) for where, times in far.items()}
        by = ", ".join(f"up to {times:,.3g} times {where}" for where, times in most.items())
        return f"{len(self.beyond)} of {count(len(self.values), 'run')} lie outside those of {self.law.name}: {by}"


def _columns(config: Config, vocab_size: int) -> dict:
    """The columns of results.csv that are known before training; `tokens` are those that the config asks for, so that
    they do not depend on the batch."""
    from moe_jax.sweep import results
    from moe_jax.sweep.manifest import PlannedRun

    V, D = config.model.vocab_size or vocab_size, config.train.tokens
    parameters, flops = counts.count_parameters(config, V), counts.count_flops(config, V, D)
    counted = counts.RunCounts(**vars(parameters), **vars(flops), steps=config.steps, vocab_size=V)
    return {**dataclasses.asdict(counted), **results.planned_columns(PlannedRun("", {}, config, counted, ""), None)}


def _vocab_size(file: ConfigFile) -> int:
    """Of the config, its token store or, without one, its vocabulary."""
    from moe_jax.data.store import MissingStore, read_info
    from moe_jax.sweep.planned_grid import vocabulary

    try:
        return file.config.model.vocab_size or read_info(file.config.data.store).vocab_size
    except MissingStore:
        return vocabulary(file)[0]


def _rounded(config: Config, quantity: str, best: float) -> float | int:
    """The nearest value that the field can have."""
    if quantity == "learning_rate":
        return float(f"{best:.{_DIGITS}g}")
    # Whole routing groups in each microbatch.
    least = config.train.microbatches * (1 if config.moe is None else config.moe.group_sequences)
    return least * max(1, round(best / config.data.sequence_length / least))


def _span(values: Sequence[float]) -> str:
    low, high = min(values), max(values)
    return f"{low:g}" if low == high else f"{low:g} to {high:g} over {count(len(values), 'run')}"
