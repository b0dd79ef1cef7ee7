"""A fitted law: what law.json holds, and predictions from it."""

import csv
import hashlib
import io
import json
from collections.abc import Mapping
from dataclasses import dataclass, field, fields

import numpy as np
from etils import epath

from moe_jax import errors, files
from moe_jax.laws import forms
from moe_jax.laws.forms import Form


@dataclass(frozen=True)
class Law:
    """Coefficients of a form, with everything that says how far to trust them.

    intervals: name -> (low, high), the central `level` of the bootstrap samples; a coefficient that was fixed has (v,
    v). errors: nats; at least rmse_fit, and rmse_holdout where rows were held out, noise where cells were replicated.
    unidentified: names of coefficients that the data do not determine, `doubts` the sentences that say so. range:
    results column -> (min, max) of the rows fitted. fixed: columns outside the law with one value in all rows."""

    form: Form
    coefficients: Mapping[str, float]
    intervals: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    level: float = 0.8
    samples: Mapping[str, np.ndarray] = field(default_factory=dict)  # bootstrap, each (samples,); empty without
    errors: Mapping[str, float] = field(default_factory=dict)
    objective: Mapping[str, object] = field(default_factory=dict)
    selection: Mapping[str, object] = field(default_factory=dict)  # columns, where, best_of, drop, holdout, as asked
    given: Mapping[str, float] = field(default_factory=dict)  # coefficients fixed by the user, not fitted
    fixed: Mapping[str, object] = field(default_factory=dict)
    columns: Mapping[str, str] = field(default_factory=dict)
    loss: str = "eval_loss"
    range: Mapping[str, tuple[float, float]] = field(default_factory=dict)
    n_fit: int = 0
    n_holdout: int = 0
    data_sha256: str = ""
    unidentified: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    starts: int = 0
    starts_at_best: int = 0
    request: str = (
        ""  # digest of what `moe-jax fit` was asked and of the results file; the same again is not fitted again
    )

    @property
    def law(self) -> str:
        return self.form.name

    @property
    def cost(self) -> str | None:
        return self.form.cost

    def axes(self, table: Mapping) -> dict[str, np.ndarray]:
        """The law's columns by symbol, from a table or mapping that has them by symbol, by the name they were fitted
        from or by the name in results.csv."""
        found = {}
        for symbol, column in self.form.columns.items():
            source = self.columns.get(symbol, column)
            key = next((k for k in (symbol, source, column) if k in table), None)
            if key is None:
                raise errors.UserError(
                    f"{self.law} needs {symbol} (column {source!r}) and was given {', '.join(map(str, table))}"
                )
            found[symbol] = np.asarray(table[key], np.float64)
        return found

    def outside(self, table: Mapping) -> dict[str, np.ndarray]:
        """Where a prediction is an extrapolation: for each column fitted, True outside the range of the rows fitted."""
        axes = self.axes(table)
        sources = {self.columns.get(s, c): axes[s] for s, c in self.form.columns.items()}
        slack = 1e-9
        return {
            c: (v < self.range[c][0] * (1 - slack)) | (v > self.range[c][1] * (1 + slack))
            for c, v in sources.items()
            if c in self.range
        }

    def loss_at(self, table: Mapping) -> np.ndarray:
        """The law's loss, nats per token; table as for `axes`, arrays broadcast."""
        return self.form.loss(self.axes(table), self.coefficients)

    def predict(self, table: Mapping, level: float | None = None, residual: bool = False):
        """(value, low, high) in nats per token, each of the broadcast shape of the columns.

        table: a DataFrame or a mapping of arrays or numbers, by symbol (N, D, G) or by results column. The interval is
        the central `level` (default: the law's) of the bootstrap samples' predictions: where the law lies. With
        `residual` it also holds the scatter of single runs about the law (normal, rmse_fit): where one more run will
        lie. Without bootstrap samples low and high are NaN."""
        axes, level = self.axes(table), self.level if level is None else level
        value = self.form.loss(axes, self.coefficients)
        if not self.samples:
            return value, np.full_like(value, np.nan), np.full_like(value, np.nan)
        shape = (-1,) + (1,) * value.ndim
        spread = self.form.loss(
            {s: v[None] for s, v in axes.items()}, {k: v.reshape(shape) for k, v in self.samples.items()}
        )
        if residual:
            scatter = np.random.default_rng(0).standard_normal((len(spread),) + (1,) * value.ndim)
            spread = spread + self.errors["rmse_fit"] * scatter
        low, high = np.quantile(spread, [(1 - level) / 2, (1 + level) / 2], axis=0)
        return value, low, high

    def to_json(self) -> dict:
        stored = {"law": self.law, "formula": self.form.formula, "cost": self.cost}
        stored |= {f: getattr(self, f) for f in _STORED}
        return json.loads(json.dumps(stored, default=lambda v: v.item()))  # numpy scalars become numbers

    def save(self, path) -> None:
        """Writes law.json atomically, and its bootstrap samples beside it as law.bootstrap.csv."""
        path = epath.Path(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        stored, samples = self.to_json(), _samples_path(path)
        if self.samples:
            out = io.StringIO()
            writer = csv.writer(out, lineterminator="\n")
            writer.writerow(self.samples)
            writer.writerows([[repr(float(v)) for v in row] for row in zip(*self.samples.values(), strict=True)])
            files.write_atomic(samples, out.getvalue().encode())
            stored["bootstrap_sha256"] = _sha256(out.getvalue())
        else:
            samples.unlink(missing_ok=True)
        files.write_json(path, stored)


_STORED = tuple(f.name for f in fields(Law) if f.name not in ("form", "samples"))


def load(path) -> Law:
    """Law from a law.json (and the samples beside it, where they are)."""
    path = epath.Path(path)
    if not path.exists():
        raise errors.UserError(f"there is no law {path}; `moe-jax fit` writes one")
    try:
        stored = files.read_json(path)
        if str(stored.get("law")).startswith("isoflop_"):
            raise errors.UserError(f"{path} holds iso-FLOP fits, which have no formula: `moe-jax optimum` asks them")
        values = {f: tuple(v) if isinstance(v := stored[f], list) else v for f in _STORED}
        for pairs in ("intervals", "range"):
            values[pairs] = {name: (low, high) for name, (low, high) in values[pairs].items()}
        samples = _load_samples(path, stored.get("bootstrap_sha256"))
        return Law(form=forms.get(stored["law"]), samples=samples, **values)
    except (KeyError, TypeError, ValueError, AttributeError) as e:
        raise errors.UserError(
            f"{path} is not a law.json of this program ({type(e).__name__}: {e}); fit it again"
        ) from e


def published(name: str, where: str | None = None) -> Law:
    """A form with coefficients as printed: published("krajewski2024", "E=64, Table 5"); default: the form's first
    set."""
    form = forms.get(name)
    where = where or next(iter(form.published))
    if where not in form.published:
        raise errors.UserError(f"{name} has no published coefficients {where!r}, only {', '.join(form.published)}")
    return Law(
        form=form,
        coefficients=form.published[where],
        columns=form.columns,
        fixed=form.holds_at.get(where, {}),
        notes=(f"{form.source}: {where}",),
    )


def find(text: str) -> Law:
    """A law by its file, or a published one by name, as "krajewski2024" or "krajewski2024:E=16, Table 8"."""
    name, _, where = text.partition(":")
    if name in forms.FORMS:
        return published(name, where or None)
    if not text.endswith(".json"):
        raise errors.UserError(f"{text!r} is neither a law.json nor a law; the laws are {', '.join(forms.FORMS)}")
    return load(text)


def _samples_path(path):
    return path.with_name(path.name.removesuffix(".json") + ".bootstrap.csv")


def _load_samples(path, sha256: str | None) -> dict[str, np.ndarray]:
    """The samples written with this law.json; another fit's, left by a crash between the two files, are not taken for
    them."""
    beside = _samples_path(path)
    if sha256 is None or not beside.exists():
        return {}
    text = beside.read_text()
    if _sha256(text) != sha256:
        raise errors.UserError(f"{beside} was not written with {path}; fit again")
    header, *lines = csv.reader(io.StringIO(text))
    return dict(zip(header, np.array(lines, np.float64).T, strict=True))


def _sha256(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()
