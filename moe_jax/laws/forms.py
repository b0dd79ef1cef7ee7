"""Scaling laws, each declared once: formula, coefficients, columns, published numbers and their source.

A form is a function of columns and coefficients under `@declare`; fit, intervals, prediction and optimum follow from
it:

    @declare(
        formula="E + A * N^-alpha + B * D^-beta", source="Hoffmann et al. 2022, Eq. 2",
        columns={"N": "n_total", "D": "tokens"}, cost="flops_6nd",
        coefficients={"E": positive(0.5, 3), "A": positive(1, 1e6), "alpha": exponent(), ...},
        published={"hoffmann2022": {"E": 1.69, ...}},
    )
    def chinchilla(N, D, E, A, alpha, B, beta):
        return E + A * power(N, -alpha) + B * power(D, -beta)

The function uses `exp`, `log`, `power` and `minimum` of this module, which serve numpy (prediction, float64, no JAX
import) and JAX tracers (fitting) alike."""

import inspect
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

import numpy as np

from moe_jax import errors


def _namespace(x):
    """The array library of x: jax.numpy for JAX's arrays and tracers, numpy for numbers and its own arrays."""
    return x.__array_namespace__() if hasattr(x, "__array_namespace__") else np


def exp(x):
    """e^x for arrays of numpy or JAX."""
    return _namespace(x).exp(x)


def log(x):
    """ln x for arrays of numpy or JAX."""
    return _namespace(x).log(x)


def power(x, p):
    """x^p for x > 0, as exp(p ln x).

    Twice as fast as XLA's pow, and the logarithm of a column is taken once for all starts."""
    return exp(p * log(x))


def minimum(x, y):
    """The lesser of x and y, which broadcast, for arrays of numpy or JAX."""
    libraries = [_namespace(x), _namespace(y)]
    return next((library for library in libraries if library is not np), np).minimum(x, y)


@dataclass(frozen=True)
class Coefficient:
    """How the optimiser searches for one coefficient.

    start, bounds: (low, high) in the coefficient's own units. Starts are drawn within `start`; the search ends at
    `bounds`, far from any sensible value: a coefficient that gets there is reported as not identified."""

    positive: bool  # fitted as its logarithm
    start: tuple[float, float]
    bounds: tuple[float, float]

    def inner(self, value):
        """A value as the optimiser's coordinate."""
        return np.log(value) if self.positive else np.asarray(value, float)

    def outer(self, theta):
        """The value of an optimiser's coordinate."""
        return np.exp(theta) if self.positive else np.asarray(theta, float)


def positive(low: float, high: float, bounds: tuple[float, float] = (1e-9, 1e30)) -> Coefficient:
    """A coefficient above zero, fitted as its logarithm; starts lie within low..high."""
    return Coefficient(True, (low, high), bounds)


def exponent(low: float = 0.05, high: float = 0.8, bounds: tuple[float, float] = (-8.0, 8.0)) -> Coefficient:
    """A coefficient of either sign; starts lie within low..high."""
    return Coefficient(False, (low, high), bounds)


LOSS = "loss"
TUNED = ("learning_rate", "batch_tokens")  # columns of results.csv; a law for one gives its best value
QUANTITIES = {LOSS: "a loss, nats per token", "learning_rate": "a learning rate", "batch_tokens": "a batch, tokens"}


@dataclass(frozen=True, eq=False, kw_only=True)
class Axes:
    """The columns of a law: symbol (N, D, G, …) -> column of results.csv."""

    name: str
    columns: Mapping[str, str]
    shares: frozenset[str] = frozenset()  # symbols with values in [0, 1), as sparsity; all others are above zero
    quantity: str = LOSS  # what the function gives: QUANTITIES

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self.columns)


@dataclass(frozen=True)
class SourceFile:
    """A user's file that declares forms, and the SHA-256 of what it held when it was run."""

    path: str
    sha256: str


@dataclass(frozen=True, eq=False, kw_only=True)  # compared by identity: compiled kernels are cached by form
class Form(Axes):
    """A declared law. Its function takes the symbols, then the coefficients, and gives the law's quantity."""

    function: Callable
    formula: str  # the right-hand side for people, equal to the function (tested); definitions follow a semicolon
    coefficients: Mapping[str, Coefficient]
    cost: str | None  # the paper's FLOP formula, of moe_jax/flops.py
    source: str
    # Sets of coefficients by the place that printed them; the first is the one shown beside a fit.
    published: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    # Constants of the runs behind a published set: {"E=64": {"expansion_rate": 64}}.
    holds_at: Mapping[str, Mapping[str, float]] = field(default_factory=dict)
    file: SourceFile | None = None  # None: a form of this package, or one declared in the running program

    @property
    def names(self) -> tuple[str, ...]:
        """The coefficients' names, in the order of declaration."""
        return tuple(self.coefficients)

    def loss(self, columns: Mapping[str, np.ndarray], coefficients: Mapping[str, float]) -> np.ndarray:
        """The law's quantity (nats per token of a law for losses), float64. columns: by symbol, broadcast."""
        given = [np.asarray(columns[s], np.float64) for s in self.symbols]
        given += [np.asarray(coefficients[k], np.float64) for k in self.names]
        with np.errstate(over="ignore"):
            return np.asarray(self.function(*given))

    def as_errors(self, values: np.ndarray) -> np.ndarray:
        """Values of the law's quantity as their errors are stated: losses in nats, rates and batches as logarithms."""
        return values if self.quantity == LOSS else np.log(values)

    def inner(self, coefficients: Mapping[str, float]) -> np.ndarray:
        """Coefficients by name -> the optimiser's vector (coefficients,), in the order of declaration."""
        return np.array([c.inner(coefficients[k]) for k, c in self.coefficients.items()], np.float64)

    def outer(self, theta: np.ndarray) -> dict[str, np.ndarray]:
        """The optimiser's vectors (…, coefficients) -> coefficients by name, each (…)."""
        return {k: c.outer(theta[..., i]) for i, (k, c) in enumerate(self.coefficients.items())}

    def bounds(self) -> tuple[np.ndarray, np.ndarray]:
        """(low, high) of the optimiser's vector, each (coefficients,)."""
        low, high = zip(
            *((c.inner(c.bounds[0]), c.inner(c.bounds[1])) for c in self.coefficients.values()), strict=True
        )
        return np.array(low, np.float64), np.array(high, np.float64)


FORMS: dict[str, Form] = {}


def declare(
    *,
    formula: str,
    source: str,
    columns: Mapping[str, str],
    coefficients: Mapping[str, Coefficient],
    published: Mapping[str, Mapping[str, float]] | None = None,
    cost: str | None = None,
    holds_at: Mapping[str, Mapping[str, float]] | None = None,
    shares: Iterable[str] = (),
    quantity: str = LOSS,
) -> Callable[[Callable], Callable]:
    """Registers the decorated function as a form under its own name; arguments as the fields of Form.

    Its parameters are the symbols and then the coefficients; one trailing underscore is allowed (lambda_). Raises
    ValueError where they are not, where a published set has other coefficients, or for an unknown quantity."""
    published = published or {}
    if quantity not in QUANTITIES:
        raise ValueError(f"quantity is {quantity!r}, must be one of {', '.join(QUANTITIES)}")

    def register(function: Callable) -> Callable:
        asked = [p.removesuffix("_") for p in inspect.signature(function).parameters]
        given = [*columns, *coefficients]
        if asked != given:
            raise ValueError(f"{function.__name__} is a function of {asked}, declared with {given}")
        for where, values in published.items():
            if set(values) != set(coefficients):
                raise ValueError(
                    f"{function.__name__}: {where} publishes {sorted(values)}, declared {sorted(coefficients)}"
                )
        FORMS[function.__name__] = Form(
            name=function.__name__,
            columns=columns,
            shares=frozenset(shares),
            quantity=quantity,
            function=function,
            formula=formula,
            coefficients=coefficients,
            cost=cost,
            source=source,
            published=published,
            holds_at=holds_at or {},
        )
        return function

    return register


def get(name: str) -> Form:
    """The form of a name. Raises UserError where there is none."""
    if name not in FORMS:
        raise errors.UserError(f"there is no law {name!r}; the laws are {', '.join(FORMS)}")
    return FORMS[name]
