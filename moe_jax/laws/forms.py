"""Scaling laws, each declared once: its formula, its coefficients, what its N means, its published numbers and their
source.

A form is a function of columns and coefficients under `@declare`; fit, intervals, prediction and optimum follow from
it:

    @declare(
        source="Hoffmann et al. 2022, Eq. 2", columns={"N": "n_total", "D": "tokens"}, cost="flops_6nd",
        coefficients={"E": positive(0.5, 3), "A": positive(1, 1e6), "alpha": exponent(), ...},
        published={"hoffmann2022": {"E": 1.69, ...}},
    )
    def chinchilla(N, D, E, A, alpha, B, beta):
        return E + A * power(N, -alpha) + B * power(D, -beta)

The formula is written with `exp`, `log` and `power` of this module, which serve numpy (prediction, float64, no JAX
import) and JAX tracers (fitting) alike."""

import inspect
import math
import re
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np

from moe_jax import errors


def _namespace(*values):
    """jax.numpy where a value is JAX's, numpy otherwise; JAX is never imported from here."""
    jax = sys.modules.get("jax")
    return jax.numpy if jax and any(isinstance(v, jax.Array) for v in values) else np


def exp(x):
    return _namespace(x).exp(x)


def log(x):
    return _namespace(x).log(x)


def power(x, p):
    """x**p for x > 0; exp of a log is twice as fast as XLA's pow, and the log of a column is taken once for all
    starts."""
    return exp(p * log(x))


@dataclass(frozen=True)
class Coefficient:
    """How one coefficient is searched: `start` is the box that starts are drawn from, in the coefficient's own units.

    A positive coefficient is fitted as its logarithm. `bounds` are walls for the optimiser, far from any sensible
    value: a coefficient that ends there is reported as not identified."""

    positive: bool
    start: tuple[float, float]
    bounds: tuple[float, float]

    def inner(self, value):
        """The optimiser's coordinate of a value."""
        return np.log(value) if self.positive else np.asarray(value, float)

    def outer(self, theta):
        return np.exp(theta) if self.positive else np.asarray(theta, float)


def positive(low: float, high: float, bounds: tuple[float, float] = (1e-9, 1e30)) -> Coefficient:
    """A coefficient that multiplies something and cannot change sign; `low` and `high` bound its starts."""
    return Coefficient(True, (low, high), bounds)


def exponent(low: float = 0.05, high: float = 0.8, bounds: tuple[float, float] = (-8.0, 8.0)) -> Coefficient:
    """A coefficient of either sign, starts within low..high."""
    return Coefficient(False, (low, high), bounds)


@dataclass(frozen=True, eq=False)  # a form is itself: kernels are cached by it
class Form:
    """A law as declared. `symbols` (N, D, G, …) are what the formula calls its columns, `columns` their names in
    results.csv."""

    name: str
    function: Callable
    coefficients: Mapping[str, Coefficient]
    columns: Mapping[str, str]
    cost: str | None  # the FLOP formula of moe_jax.counts that the paper plans with
    source: str
    published: Mapping[str, Mapping[str, float]]  # by where it was printed; the first is the one shown beside a fit

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self.columns)

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.coefficients)

    @property
    def formula(self) -> str:
        """The right-hand side as it stands in the source, for tables and reports."""
        body = " ".join(inspect.getsource(self.function).split("return", 1)[1].split())
        return re.sub(r"(?:\w+\.)*power\((\w+), ([-\w]+)\)", r"\1^\2", body)

    def loss(self, columns: Mapping[str, np.ndarray], coefficients: Mapping[str, float]) -> np.ndarray:
        """Nats per token, float64. columns: by symbol; all arrays broadcast against each other."""
        given = {s: np.asarray(columns[s], np.float64) for s in self.symbols}
        with np.errstate(over="ignore"):
            return np.asarray(
                self.function(**given, **{k: np.asarray(coefficients[k], np.float64) for k in self.names})
            )

    def inner(self, coefficients: Mapping[str, float]) -> np.ndarray:
        """Coefficients by name -> the optimiser's vector, in the order of declaration."""
        return np.array([c.inner(coefficients[k]) for k, c in self.coefficients.items()], np.float64)

    def outer(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """The optimiser's vectors, (…, coefficients) -> values by name, each (…)."""
        return {k: c.outer(theta[..., i]) for i, (k, c) in enumerate(self.coefficients.items())}

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        low, high = zip(
            *((c.inner(c.bounds[0]), c.inner(c.bounds[1])) for c in self.coefficients.values()), strict=True
        )
        return np.array(low, np.float64), np.array(high, np.float64)


FORMS: dict[str, Form] = {}


def declare(*, source: str, columns: dict, coefficients: dict, published: dict, cost: str | None = None):
    """Registers the decorated formula under its own name. Its parameters are the symbols and then the coefficients."""

    def register(function: Callable) -> Callable:
        asked = list(inspect.signature(function).parameters)
        given = [*columns, *coefficients]
        if asked != given:
            raise ValueError(f"{function.__name__} is a function of {asked}, declared with {given}")
        for where, values in published.items():
            if set(values) != set(coefficients):
                raise ValueError(
                    f"{function.__name__}: {where} publishes {sorted(values)}, declared {sorted(coefficients)}"
                )
        FORMS[function.__name__] = Form(function.__name__, function, coefficients, columns, cost, source, published)
        return function

    return register


def get(name: str) -> Form:
    if name not in FORMS:
        raise errors.UserError(f"there is no law {name!r}; the laws are {', '.join(FORMS)}")
    return FORMS[name]


@declare(
    source="Hoffmann et al. 2022 (2203.15556) Eq. 2; besiroglu2024: Besiroglu et al. 2024 (2404.10102) Table 1",
    columns={"N": "n_total", "D": "tokens"},
    cost="flops_6nd",
    coefficients={
        "E": positive(0.3, 3),
        "A": positive(1, 1e6),
        "alpha": exponent(),
        "B": positive(1, 1e6),
        "beta": exponent(),
    },
    published={
        # unrounded, from the paper's TeX source: 1.69, 406.4, .34, 410.7, .28 in print
        "hoffmann2022": {
            "E": math.exp(0.5267228),
            "A": math.exp(6.0073404),
            "alpha": 0.33917084,
            "B": math.exp(6.0179186),
            "beta": 0.2849083,
        },
        "besiroglu2024": {"E": 1.8172, "A": 482.01, "alpha": 0.3478, "B": 2085.43, "beta": 0.3658},
    },
)
def chinchilla(N, D, E, A, alpha, B, beta):
    return E + A * power(N, -alpha) + B * power(D, -beta)


@declare(
    source="Krajewski et al. 2024 (2402.07871) Eq. 9; N is the total of non-embedding parameters, d²(8E+4)·n_blocks",
    columns={"N": "n_total_nonemb", "D": "tokens", "G": "granularity"},
    cost="flops_krajewski2024",
    coefficients={
        "c": positive(0.05, 3),
        "g": positive(0.01, 30),
        "gamma": exponent(0.05, 1.2),
        "a": positive(1, 1e5),
        "alpha": exponent(),
        "b": positive(1, 1e6),
        "beta": exponent(),
    },
    published={
        # unrounded, from a comment in the authors' plotND.py: the printed Table 1 is off by up to .024 in loss
        "E=64": {"c": 0.472, "g": 2.0760, "gamma": 0.5843, "a": 18.0712, "alpha": 0.1146, "b": 30.8082, "beta": 0.1465},
        "E=64, Table 5": {"c": 0.472, "g": 2.07, "gamma": 0.570, "a": 17.6, "alpha": 0.114, "b": 26.7, "beta": 0.140},
        "E=16, Table 8": {"c": 0.472, "g": 1.18, "gamma": 0.986, "a": 19.64, "alpha": 0.124, "b": 57.07, "beta": 0.169},
    },
)
def krajewski2024(N, D, G, c, g, gamma, a, alpha, b, beta):
    return c + (g * power(G, -gamma) + a) * power(N, -alpha) + b * power(D, -beta)
