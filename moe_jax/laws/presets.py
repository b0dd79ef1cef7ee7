"""Presets: the objective, starts and split of papers' fits. `--preset krajewski2024`; flags override it.

Each is the paper's own, except where a caveat says that it is not."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from moe_jax import errors
from moe_jax.laws.objective import Objective


@dataclass(frozen=True)
class Preset:
    """How a paper fitted its law."""

    law: str
    objective: Objective
    source: str
    fix: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[str, list[float]] | None = None  # a grid, in the coefficients' own units; None: the default number
    holdout: str = ""
    drop: str = ""
    caveat: str = ""  # a sentence: why this is not the paper's own objective; "" where it is


def _exps(*values: float) -> list[float]:
    return [math.exp(v) for v in values]


# Hoffmann et al. 2022, appendix D.3: 5 · 6 · 5 · 6 · 5 = 4,500 starts
_HOFFMANN = {
    "E": _exps(-1, -0.5, 0, 0.5, 1),
    "A": _exps(0, 5, 10, 15, 20, 25),
    "alpha": [0, 0.5, 1, 1.5, 2],
    "B": _exps(0, 5, 10, 15, 20, 25),
    "beta": [0, 0.5, 1, 1.5, 2],
}

PRESETS = {
    # The text says weight decay 5e-4 and a fitted c. The code has 5e-5·Σ|θ| and c = .472; only these give Table 1.
    "krajewski2024": Preset(
        law="krajewski2024",
        objective=Objective(space="linear", huber=0.1, l1=5e-5),
        fix={"c": 0.472},
        source="Krajewski et al. 2024 §5 and the authors' code",
    ),
    "hoffmann2022": Preset(
        law="chinchilla",
        objective=Objective(space="log", huber=1e-3),
        starts=_HOFFMANN,
        source="Hoffmann et al. 2022 §3.3; the sum of Huber losses, as theirs stopped early under a mean",
    ),
    # Their grid search, on Hoffmann's objective.
    "besiroglu2024-grid": Preset(
        law="chinchilla",
        objective=Objective(space="log", huber=1e-3),
        starts=_HOFFMANN,
        drop="highest:5",
        source="Besiroglu et al. 2024, notebook: grid of L-BFGS-B starts",
    ),
    # Their printed numbers come from a Huber likelihood with a free scale, which collapses to e^−12.27, and δ to 5e-9:
    # in effect least absolute deviations. δ = 1e-7 gives their numbers.
    "besiroglu2024": Preset(
        law="chinchilla",
        objective=Objective(space="log", huber=1e-7),
        drop="highest:5",
        source="Besiroglu et al. 2024 Table 1 and notebook",
    ),
    # Not theirs: see the caveat. They print a weight decay of 1e-5, which L-BFGS does not have. As a penalty it cannot
    # have been there: on losses planted with their coefficients on the 270 runs that they list, a decay against the sum
    # over runs puts these coefficients 1.5 times above the optimum and pulls E_max to its bound; against the mean over
    # runs the fit misses by .095 nats. So it is left out (docs/laws_forms.md).
    "joint_moe2025": Preset(
        law="joint_moe2025",
        objective=Objective(space="log", huber=1e-2, weight_exponent=30),
        caveat=(
            "The preset joint_moe2025 is made after the paper and is not its own objective: the weight decay that the"
            " paper states is left out, as it moves the optimum away from the printed coefficients"
            " (docs/laws_forms.md)."
        ),
        # 3^9 starts in the paper; E_start and E_max begin where Clark et al. ended
        starts={
            "a": [30, 100, 300],
            "alpha": [-0.05, -0.25, -0.5],
            "delta": [-0.5, 0, 0.5],
            "gamma": [-0.5, 0, 0.5],
            "b": [30, 100, 300],
            "beta": [-0.05, -0.25, -0.5],
            "omega": [-0.5, 0, 0.5],
            "zeta": [-0.5, 0, 0.5],
            "E_start": [2],
            "E_max": [300],
            "c": [0.5, 1, 2],
        },
        source="after Ludziejewski et al. 2025 §5 and appendix B; weights (ln L)^−30 from the authors' notebook",
    ),
    # Table 2: 3^4 · 6^3 · 5^2 = 437,400 starts; e begins at e^1.5
    "abnar2025": Preset(
        law="abnar2025",
        objective=Objective(space="log", huber=1e-3),
        starts={
            **{k: _exps(0, 10, 20) for k in "abcd"},
            **{k: [0, 0.25, 0.5, 0.75, 1, 1.25] for k in ("alpha", "beta", "gamma")},
            **{k: [-1, -0.5, 0, 0.5, 1] for k in ("lambda", "delta")},
            "e": _exps(1.5),
        },
        holdout="sparsity:0.98",
        source="Abnar et al. 2025 §2 and Table 2",
    ),
}


def preset(name: str) -> Preset:
    """The preset of a name. Raises UserError where there is none."""
    if name not in PRESETS:
        raise errors.UserError(f"there is no preset {name!r}; the presets are {', '.join(PRESETS)}")
    return PRESETS[name]
