"""How much each row counts in a fit: as often as weights say, or as well as its loss was measured.

A weighting is named in a text, which law.json keeps: "" (all rows count the same), "weights=COLUMN" or "sigma=COLUMN".

With weights w the objective is Σ w·huber_δ(r) with w normalised to mean 1: an optimum is the same as that of rows
repeated w times. With standard deviations σ of the losses (nats) it is that of standardised residuals,

    Σ k² huber_{δ/k}(r),  k = s / σ (of ln loss where the residuals are: s · loss / σ),  s so that k² has the mean 1,

which is least squares with 1/σ² within δ and least absolute deviations with 1/σ outside."""

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np

from moe_jax import errors

WEIGHTS, SIGMA = "weights", "sigma"


@dataclass(frozen=True)
class RowWeights:
    """The values of a weighting's column: weights, in proportion, or standard deviations of the losses in nats."""

    kind: str  # WEIGHTS | SIGMA
    values: np.ndarray  # (rows,) above zero

    def take(self, index: np.ndarray) -> "RowWeights":
        """Those of the rows at `index`, in its order."""
        return replace(self, values=self.values[index])

    def scales(self, losses: np.ndarray, space: str) -> tuple[np.ndarray, np.ndarray]:
        """(weight, factor of δ) of each row, both (rows,); losses (rows,) in nats, space of the residuals.

        The weights are relative; the factors are 1 but for standard deviations, where they are σ / s."""
        if self.kind == WEIGHTS:
            return self.values, np.ones(len(losses))
        precision = losses / self.values if space == "log" else 1 / self.values
        precision /= np.sqrt(np.mean(precision**2))
        return precision**2, 1 / precision


def of_options(weights: str, sigma: str) -> str:
    """The weighting that two options, columns or "", ask for. Raises UserError for both at once."""
    if weights and sigma:
        raise errors.UserError("--weights and --sigma exclude each other: a weight that knows sigma is 1/sigma²")
    return f"{WEIGHTS}={weights}" if weights else f"{SIGMA}={sigma}" if sigma else ""


def parse(weighting: str) -> tuple[str, str]:
    """(kind, column) of a weighting. Raises UserError where it is none."""
    kind, _, column = weighting.partition("=")
    if kind not in (WEIGHTS, SIGMA) or not column:
        raise errors.UserError(f"rows are weighted by {weighting!r}, must be weights=COLUMN or sigma=COLUMN")
    return kind, column


def options(weighting: str) -> Mapping[str, str]:
    """The options of laws.fit that give this weighting."""
    return dict([parse(weighting)]) if weighting else {}
