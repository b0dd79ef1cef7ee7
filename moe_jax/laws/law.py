"""A fitted law: predictions, and the law.json that keeps it."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, is_dataclass
from typing import get_type_hints

import numpy as np
from etils import epath

from moe_jax import errors, files, records
from moe_jax.laws import extrapolation, forms, meaning, user_file
from moe_jax.laws.bands import Bands, half_normal
from moe_jax.laws.extrapolation import Extrapolation
from moe_jax.laws.forms import Form
from moe_jax.laws.intervals import tails
from moe_jax.laws.published_runs import PUBLISHED_RUNS


@dataclass(frozen=True)
class FitData:
    """The rows that a law was fitted to."""

    columns: Mapping[str, str] = field(default_factory=dict)  # symbol -> column or expression of the table
    loss: str = "eval_loss"  # column of the losses
    range: Mapping[str, tuple[float, float]] = field(default_factory=dict)  # column -> (min, max) of the rows fitted
    largest_run: Mapping[str, float] = field(default_factory=dict)  # FLOP formula -> FLOPs of the dearest row fitted
    constants: Mapping[str, object] = field(default_factory=dict)  # columns outside the law, with one value in all rows
    selection: Mapping[str, object] = field(default_factory=dict)  # columns, where, best_of, drop, holdout, as asked
    design: Mapping[str, Mapping[str, float]] = field(default_factory=dict)  # spans, levels, correlations: see designs
    n_fit: int = 0
    n_holdout: int = 0
    sha256: str = ""  # of the table
    notes: tuple[str, ...] = ()  # sentences: rows left out, columns that vary besides the law's axes
    weights: str = ""  # how rows are weighted: "", weights=COLUMN or sigma=COLUMN


@dataclass(frozen=True)
class FitMethod:
    """How a law was fitted."""

    objective: Mapping[str, object] = field(default_factory=dict)  # settings, bootstrap, split, and the value reached
    starts: int = 0
    starts_at_best: int = 0
    interval_method: str = ""  # residuals | wild | pairs (see bootstrap); "" without samples


@dataclass(frozen=True)
class Identifiability:
    """What the rows do not determine."""

    unidentified: tuple[str, ...] = ()  # names of coefficients, fitted or fixed
    warnings: tuple[str, ...] = ()  # sentences: why they are not, and what else weakens the fit


@dataclass(frozen=True)
class Law:
    """A form with its coefficients, and everything that tells how reliable they are.

    intervals: name -> (low, high), the central `level` of the bootstrap samples; (v, v) for a fixed coefficient. That
    of a coefficient that is not identified reaches over all values that the rows accept.
    fixed_coefficients: held at a value by the user, not fitted. errors: nats, or those of the logarithm of a
    rate or a batch; rmse_fit and max_fit, rmse_holdout where rows were held out, noise where cells were replicated."""

    form: Form
    coefficients: Mapping[str, float]
    fixed_coefficients: Mapping[str, float] = field(default_factory=dict)
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    level: float = 0.8
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)  # bootstrap, each (samples,); empty without
    errors: Mapping[str, float] = field(default_factory=dict)
    data: FitData = field(default_factory=FitData)
    method: FitMethod = field(default_factory=FitMethod)
    identifiability: Identifiability = field(default_factory=Identifiability)
    extrapolation: Extrapolation | None = None  # the law's own error beyond its data; None: not known
    checklist: Mapping[str, str] = field(default_factory=dict)  # item -> what a reader must know (checklist.py)

    @property
    def name(self) -> str:
        """The form's name."""
        return self.form.name

    @property
    def published_set(self) -> str | None:
        """The name of the published coefficients that these are; None for a fitted law."""
        if self.data.n_fit:
            return None
        return next((k for k, v in self.form.published.items() if v == self.coefficients), None)

    @property
    def comparable_set(self) -> str | None:
        """The first published coefficients that hold where this law does (E = 16, …), else the first of all."""
        sets, constants = self.form.published, self.data.constants
        holds = (k for k in sets if all(constants.get(c, v) == v for c, v in self.form.holds_at.get(k, {}).items()))
        return next(holds, next(iter(sets), None))

    def axes(self, table: Mapping) -> dict[str, np.ndarray]:
        """Symbol -> column. The table may name them by symbol, by the column of the fit, or by that of results.csv.

        Raises UserError for a column that is not there."""
        found = {}
        for symbol, column in self.form.columns.items():
            source = self.data.columns.get(symbol, column)
            known = meaning.standard(source) or column  # N as the fit counted it, never as another count
            key = next((k for k in (symbol, source, known) if k in table), None)
            if key is None:
                raise errors.UserError(
                    f"{self.name} needs {symbol} (column {source!r}) and was given {', '.join(map(str, table))}"
                )
            found[symbol] = np.asarray(table[key], np.float64)
        return found

    def outside(self, table: Mapping) -> dict[str, np.ndarray]:
        """Where a prediction is an extrapolation: for each column fitted, True outside the range of the rows fitted."""
        axes, known = self.axes(table), self.data.range
        sources = {self.data.columns.get(s, c): axes[s] for s, c in self.form.columns.items()}
        slack = 1e-9
        return {
            c: (v < known[c][0] * (1 - slack)) | (v > known[c][1] * (1 + slack))
            for c, v in sources.items()
            if c in known
        }

    def loss_at(self, table: Mapping) -> np.ndarray:
        """The law's loss, nats per token; table as for `axes`, arrays broadcast. Raises UserError for a law of another
        quantity."""
        return self.require(forms.LOSS).value_at(table)

    def value_at(self, table: Mapping) -> np.ndarray:
        """The law's quantity (form.quantity); table as for `axes`, arrays broadcast."""
        return self.form.loss(self.axes(table), self.coefficients)

    def require(self, quantity: str) -> "Law":
        """The law itself. Raises UserError where it is one of another quantity."""
        if self.form.quantity != quantity:
            found, asked = forms.QUANTITIES[self.form.quantity], forms.QUANTITIES[quantity]
            use = "" if self.form.quantity == forms.LOSS else "; --rule of plan, sweep, submit and train takes it"
            raise errors.UserError(f"{self.name} gives {found}, where {asked} is needed{use}")
        return self

    def distance(self, table: Mapping) -> np.ndarray:
        """How far points lie beyond the rows fitted, in e-folds of cost or of an axis; 0 within, and where the rows are
        not known. A column of train_flops counts before N and D do."""
        axes, sources = self.axes(table), self.data.columns
        costs = extrapolation.measures(table, axes, self.form.cost)
        reach = self.extrapolation.reach if self.extrapolation else {}
        ranges = {s: self.data.range[c] for s, c in sources.items() if c in self.data.range and s in axes}
        return extrapolation.distance(costs, reach, axes, ranges, self.form.shares)

    def bands(self, table: Mapping, level: float | None = None) -> Bands:
        """Predictions with the three reasons why a run may miss them: coefficients, noise, and the form itself.

        table: as for `axes`. level: the central share of each, default the law's. The scatter of single runs is
        rmse_fit over the degrees of freedom that the coefficients leave, normal."""
        axes, level = self.axes(table), self.level if level is None else level
        value = self.form.loss(axes, self.coefficients)
        low = high = np.full_like(value, np.nan)
        if self.samples:
            shape = (-1,) + (1,) * value.ndim
            sampled = {k: v.reshape(shape) for k, v in self.samples.items()}
            spread = self.form.loss({s: v[None] for s, v in axes.items()}, sampled)
            low, high = np.quantile(spread, tails(level), axis=0)
        n, fitted = self.data.n_fit, len(self.form.names) - len(self.fixed_coefficients)
        scatter = self.errors.get("rmse_fit", 0.0) * (np.sqrt(n / (n - fitted)) if n > fitted else 1.0)
        beyond = np.zeros_like(value)
        if self.extrapolation:
            beyond = beyond + self.extrapolation.half_width(self.distance(table), level)
        noise = half_normal(level) * scatter
        by_value = self.form.quantity != forms.LOSS  # rates scatter by a factor
        return Bands(value, (low, high), value * np.expm1(noise) if by_value else np.full_like(value, noise), beyond)

    def predict(self, table: Mapping, level: float | None = None, residual: bool = False):
        """(value, low, high) of the law's quantity (nats per token), each of the broadcast shape of the columns.

        table: a DataFrame or a mapping of arrays or numbers, by symbol (N, D, G) or by results column. The interval is
        where the mean of such runs lies, at the central `level` (default: the law's): what the bootstrap leaves open,
        and beyond the data the law's own error. With `residual` it also holds the scatter of single runs about the law:
        where one more run will lie. `bands` has each apart. Without bootstrap samples low and high are NaN."""
        found = self.bands(table, level)
        return (found.value, *found.together(residual))

    def to_json(self) -> dict:
        """What law.json holds; the bootstrap samples lie beside it."""
        stored = {"law": self.name, "formula": self.form.formula, "cost": self.form.cost}
        stored["quantity"] = self.form.quantity
        if self.form.file is not None:
            stored["declared_in"] = {"file": self.form.file.path, "sha256": self.form.file.sha256}
        for key, (group, name) in _KEYS.items():
            stored[key] = getattr(getattr(self, group) if group else self, name)
        return json.loads(json.dumps(stored, default=_plain))

    def save(self, path, **more: object) -> None:
        """Writes law.json atomically, and its bootstrap samples beside it as law.bootstrap.csv.

        more: further keys for the file, which `load` ignores."""
        path = epath.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        stored, samples = self.to_json() | more, _samples_path(path)
        if self.samples:
            out = io.StringIO()
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(self.samples)
            writer.writerows([[repr(float(v)) for v in row] for row in zip(*self.samples.values(), strict=True)])
            files.write_atomic(samples, out.getvalue().encode())
            stored["bootstrap_sha256"] = _sha256(out.getvalue())
        else:
            samples.unlink(missing_ok=True)
        files.write_sealed(path, stored)


# Key of law.json -> (group of Law, field); the file is flat.
_KEYS = {
    "coefficients": ("", "coefficients"),
    "fixed_coefficients": ("", "fixed_coefficients"),
    "intervals": ("", "intervals"),
    "level": ("", "level"),
    "errors": ("", "errors"),
    "objective": ("method", "objective"),
    "starts": ("method", "starts"),
    "starts_at_best": ("method", "starts_at_best"),
    "interval_method": ("method", "interval_method"),
    "design": ("data", "design"),
    "selection": ("data", "selection"),
    "fixed": ("data", "constants"),
    "columns": ("data", "columns"),
    "loss": ("data", "loss"),
    "range": ("data", "range"),
    "largest_run": ("data", "largest_run"),
    "n_fit": ("data", "n_fit"),
    "n_holdout": ("data", "n_holdout"),
    "data_sha256": ("data", "sha256"),
    "notes": ("data", "notes"),
    "weights": ("data", "weights"),
    "unidentified": ("identifiability", "unidentified"),
    "warnings": ("identifiability", "warnings"),
    "checklist": ("", "checklist"),
    "extrapolation": ("", "extrapolation"),
}
_HINTS = {
    group: get_type_hints(cls)
    for group, cls in (("", Law), ("method", FitMethod), ("data", FitData), ("identifiability", Identifiability))
}


def _plain(value):
    """What JSON has for a record or a numpy scalar."""
    return asdict(value) if is_dataclass(value) else value.item()


def load(path) -> Law:
    """Law from a law.json, and from the samples beside it where there are any.

    Raises UserError where the file is missing, damaged or of iso-FLOP fits, and where its form is not declared."""
    path = epath.Path(path)
    if not path.exists():
        raise errors.UserError(f"there is no law {path}; `moe-jax fit` writes one")
    try:
        stored = files.read_sealed(path)
        if str(stored.get("law")).startswith("isoflop_"):
            raise errors.UserError(f"{path} holds iso-FLOP fits, which have no formula; `moe-jax optimum` reads them")
        values: dict[str, dict] = {"": {}, "data": {}, "method": {}, "identifiability": {}}
        for key, (group, name) in _KEYS.items():
            if key == "extrapolation":
                values[group][name] = _extrapolation(stored[key])
                continue
            if not records.is_of(stored[key], _HINTS[group][name], signed=True):
                raise TypeError(f"{key} is {stored[key]!r:.40}")
            values[group][name] = tuple(stored[key]) if isinstance(stored[key], list) else stored[key]
        for group, name in (("", "intervals"), ("data", "range")):
            values[group][name] = {k: (low, high) for k, (low, high) in values[group][name].items()}
        form, samples = user_file.form_of_law(stored, path), _load_samples(path, stored.get("bootstrap_sha256"))
        if any(named.keys() != set(form.names) for named in [stored["coefficients"], *filter(None, [samples])]):
            raise ValueError(f"its coefficients are not {', '.join(form.names)}")
        return Law(
            form=form,
            samples=samples,
            data=FitData(**values["data"]),
            method=FitMethod(**values["method"]),
            identifiability=Identifiability(**values["identifiability"]),
            **values[""],
        )
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise errors.UserError(
            f"{path} is not a law.json of this program ({type(e).__name__}: {e}); fit it again"
        ) from e


def _extrapolation(stored: Mapping | None) -> Extrapolation | None:
    """Raises ValueError for what is not a record of an extrapolation."""
    try:
        return None if stored is None else records.read(Extrapolation, stored)
    except errors.UserError as e:
        raise ValueError(f"extrapolation: {e}") from e


def published(name: str, where: str | None = None) -> Law:
    """A form with coefficients as printed: published("krajewski2024", "E=64, Table 5"); default: its first set.

    Raises UserError for an unknown form or set."""
    form = forms.get(name)
    if not form.published:
        raise errors.UserError(f"{name} is declared without published coefficients; name a law.json fitted with it")
    where = where or next(iter(form.published))
    if where not in form.published:
        raise errors.UserError(f"{name} has no published coefficients {where!r}, only {', '.join(form.published)}")
    runs = PUBLISHED_RUNS.get((name, where))
    data = FitData(
        columns=form.columns,
        range=runs.range if runs else {},
        largest_run=runs.largest_run if runs else {},
        constants={**(runs.constants if runs else {}), **form.holds_at.get(where, {})},
        notes=(f"{form.source}: {where}", *([f"its runs: {runs.source}"] if runs else [])),
    )
    return Law(form=form, coefficients=form.published[where], data=data)


def find(text: str, quantity: str | None = forms.LOSS) -> Law:
    """A law by its file or its name: "W/law.json", "krajewski2024", "krajewski2024:E=16, Table 8".

    "FILE.py:" before either runs a file that declares the form. quantity: what the law must give; None: any. Raises
    UserError where there is no such law."""
    law = _find(text)
    return law if quantity is None else law.require(quantity)


def _find(text: str) -> Law:
    text = user_file.declare(text)
    name, _, where = text.partition(":")
    if name in forms.FORMS:
        return published(name, where or None)
    if not text.endswith(".json"):
        raise errors.UserError(f"{text!r} is neither a law.json nor a law; the laws are {', '.join(forms.FORMS)}")
    return load(text)


def _samples_path(path):
    return path.with_name(path.name.removesuffix(".json") + ".bootstrap.csv")


def _load_samples(path, sha256: str | None) -> dict[str, np.ndarray]:
    """The bootstrap samples written with this law.json. Raises UserError where they are gone or of another fit.

    A crash between the two files leaves samples of another fit there: the digest tells them apart."""
    if sha256 is None:
        return {}
    beside = _samples_path(path)
    try:
        text = files.read_file(beside).decode(errors="replace")
    except FileNotFoundError as e:
        raise errors.UserError(
            f"{beside} is not there, and {path} takes its intervals from it; put it back, or fit again"
        ) from e
    if _sha256(text) != sha256:
        raise errors.UserError(f"{beside} was not written with {path}; fit again")
    header, *lines = csv.reader(io.StringIO(text))
    return dict(zip(header, np.array(lines, np.float64).T, strict=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
