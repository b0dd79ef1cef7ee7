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

import ast
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Mapping
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


@dataclass(frozen=True, eq=False, kw_only=True)
class Axes:
    """What a law calls its columns (N, D, G, …), and what results.csv calls them."""

    name: str
    columns: Mapping[str, str]
    shares: frozenset[str] = frozenset()  # symbols that are shares in [0, 1), as sparsity; all others are above zero

    @property
    def symbols(self) -> tuple[str, ...]:
        return tuple(self.columns)


@dataclass(frozen=True, eq=False, kw_only=True)  # a form is itself: kernels are cached by it
class Form(Axes):
    """A law as declared; its function takes the symbols, then the coefficients."""

    function: Callable
    coefficients: Mapping[str, Coefficient]
    cost: str | None  # the FLOP formula of moe_jax.counts that the paper plans with
    source: str
    published: Mapping[str, Mapping[str, float]]  # by where it was printed; the first is the one shown beside a fit
    holds_at: Mapping[
        str, Mapping[str, float]
    ]  # what a published set holds for, by where: {"E=64": {"expansion_rate": 64}}

    @property
    def names(self) -> tuple[str, ...]:
        return tuple(self.coefficients)

    @property
    def formula(self) -> str:
        """The right-hand side as it stands in the source, for tables and reports."""
        *definitions, value = ast.parse(textwrap.dedent(inspect.getsource(self.function))).body[0].body
        lines = [ast.unparse(_Powers().visit(line)) for line in (value.value, *definitions)]
        text = "; ".join(lines).replace(" ** ", "^").replace("lambda_", "lambda")
        return re.sub(r"\^\((-\w+)\)", r"^\1", text)

    def loss(self, columns: Mapping[str, np.ndarray], coefficients: Mapping[str, float]) -> np.ndarray:
        """Nats per token, float64. columns: by symbol; all arrays broadcast against each other."""
        given = [np.asarray(columns[s], np.float64) for s in self.symbols]
        given += [np.asarray(coefficients[k], np.float64) for k in self.names]
        with np.errstate(over="ignore"):
            return np.asarray(self.function(*given))

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


class _Powers(ast.NodeTransformer):
    """power(x, p) -> x ** p."""

    def visit_Call(self, node):
        node = self.generic_visit(node)
        if ast.unparse(node.func).split(".")[-1] != "power":
            return node
        return ast.BinOp(node.args[0], ast.Pow(), node.args[1])


FORMS: dict[str, Form] = {}


def declare(
    *,
    source: str,
    columns: dict,
    coefficients: dict,
    published: dict,
    cost: str | None = None,
    holds_at: Mapping[str, dict] | None = None,
    shares: Iterable[str] = (),
):
    """Registers the decorated formula under its own name.

    Its parameters are the symbols and then the coefficients; one trailing underscore is allowed (lambda_).
    """

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
            function=function,
            coefficients=coefficients,
            cost=cost,
            source=source,
            published=published,
            holds_at=holds_at or {},
        )
        return function

    return register


def get(name: str) -> Form:
    if name not in FORMS:
        raise errors.UserError(f"there is no law {name!r}; the laws are {', '.join(FORMS)}")
    return FORMS[name]
