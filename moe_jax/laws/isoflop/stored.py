"""The file of iso-FLOP fits: written whole, and believed only where every value is of its type."""

import math
from collections.abc import Mapping
from dataclasses import asdict

import numpy as np
import pandas as pd
from etils import epath

from moe_jax import errors, files, records
from moe_jax.laws.isoflop.fits import METHODS, IsoFlop
from moe_jax.laws.isoflop.minima import Minima
from moe_jax.laws.isoflop.surfaces import Surface

KINDS = ("isoflop_minima", "isoflop_surface")
_NUMBER = float | None  # null: not finite
_PLAIN = {
    "method": str, "level": float, "columns": dict[str, str], "loss": str, "n_fit": int, "data_sha256": str,
    "tolerance": float, "notes": tuple[str, ...], "budgets": tuple[float, ...],
}  # fmt: skip
_ROW = {
    "flops": float, "runs": int, "N": _NUMBER, "N_low": _NUMBER, "N_high": _NUMBER, "tokens": _NUMBER, "loss": _NUMBER,
    "usable": bool, "why": str,
}  # fmt: skip
_MINIMA = {"method": str, "level": float, "left_out": int, "warnings": tuple[str, ...]}
_SURFACE = {
    "degrees": tuple[int, int, int], "weights": tuple[float, ...], "sizes": tuple[float, float],
    "sparsities": tuple[float, ...], "runs": int, "rmse_fit": float, "rmse_cv": float, "correlation_cv": _NUMBER,
}  # fmt: skip
_SHARES = ("level", "tolerance")


def save(found: IsoFlop, path) -> None:
    """Writes the file atomically."""
    path = epath.Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    stored = {"law": found.kind} | {k: getattr(found, k) for k in _PLAIN}
    stored["minima"], stored["surfaces"] = None, []
    if found.minima is not None:
        of = found.minima
        stored["minima"] = {k: getattr(of, k) for k in _MINIMA} | {
            "table": of.table.to_dict("records"),
            "power_laws": of.power_laws,
            "samples": of.samples,
            "curves": [{"flops": C, "N": N, "loss": loss} for C, (N, loss) in of.curves.items()],
        }
    stored["surfaces"] = [{"flops": C} | asdict(surface) for C, surface in found.surfaces.items()]
    files.write_sealed(path, _plain(stored))


def load(path) -> IsoFlop | None:
    """The fits in a file that `save` wrote; None for a law with a form. Raises UserError for a damaged file."""
    path = epath.Path(path)
    stored = files.read_sealed(path)
    if stored.get("law") not in KINDS:
        return None
    try:
        plain = _typed(stored, _PLAIN)
        if plain["method"] not in METHODS:
            raise ValueError(f"method {plain['method']!r:.40}")
        if stored["law"] == "isoflop_minima":
            return IsoFlop(**plain, minima=_minima(stored["minima"]))
        fitted = {_positive(given["flops"]): _surface(given) for given in stored["surfaces"]}
        if not fitted:
            raise ValueError("no surface")
        return IsoFlop(**plain, surfaces=fitted)
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as e:
        raise errors.UserError(f"{path} is damaged ({type(e).__name__}: {e}); fit it again") from e


def _minima(given: Mapping) -> Minima:
    rows = [_typed(row, _ROW) | {"flops": _positive(row["flops"])} for row in given["table"]]
    if not rows:
        raise ValueError("no budget")
    table = pd.DataFrame(rows).astype({k: float for k, hint in _ROW.items() if hint in (float, _NUMBER)})
    curves = {_positive(c["flops"]): (_array(c["N"], (-1,)), _array(c["loss"], (-1,))) for c in given["curves"]}
    if any(N.shape != loss.shape for N, loss in curves.values()):
        raise ValueError("a curve's N and losses differ in number")
    return Minima(
        **_typed(given, _MINIMA),
        table=table,
        power_laws=_array(given["power_laws"], (2, 2)),
        samples=_array(given["samples"], (-1, 2, 2)),
        curves=curves,
    )


def _surface(given: Mapping) -> Surface:
    values = _typed(given, _SURFACE)
    values["correlation_cv"] = math.nan if values["correlation_cv"] is None else values["correlation_cv"]
    weights = _array(given["weights"], (-1,))
    if len(weights) != sum(values["degrees"]) + 1 or not all(0 <= s < 1 for s in values["sparsities"]):
        raise ValueError("weights or sparsities are not those of its degrees")
    _positive(min(values["sizes"]))
    return Surface(**values | {"weights": weights, "samples": _array(given["samples"], (-1, len(weights)))})


def _typed(given: Mapping, hints: Mapping) -> dict:
    """The values of the keys in `hints`. Raises KeyError, or TypeError for one that is not of its type."""
    found = {}
    for key, hint in hints.items():
        if not records.is_of(given[key], hint, signed=True):
            raise TypeError(f"{key} is {given[key]!r:.40}")
        if key in _SHARES and not 0 < given[key] < 1:
            raise ValueError(f"{key} is {given[key]}, must be inside (0, 1)")
        found[key] = tuple(given[key]) if isinstance(given[key], list) else given[key]
    return found


def _array(values, shape: tuple[int, ...]) -> np.ndarray:
    """float64 of a shape, null as NaN. Raises ValueError or TypeError for anything else."""
    if not isinstance(values, list):
        raise TypeError(f"{values!r:.40} is not a list")
    found = np.array(values, np.float64)
    return found.reshape(shape if found.size else tuple(0 if n == -1 else n for n in shape))


def _positive(value) -> float:
    if not (records.is_of(value, float) and value > 0):
        raise TypeError(f"{value!r:.40} is not above zero")
    return float(value)


def _plain(value):
    """A value as JSON can hold it: arrays as lists, numbers that are not finite as null."""
    match value:
        case np.ndarray() | np.generic():
            return _plain(value.tolist())
        case Mapping():
            return {k: _plain(v) for k, v in value.items()}
        case list() | tuple():
            return [_plain(v) for v in value]
        case float():
            return value if math.isfinite(value) else None
    return value
