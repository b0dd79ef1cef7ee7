"""Laws of the best learning rate and of the best batch.

Each gives the value at which the loss of a cell is lowest. All are power laws; in logarithms they are linear. `fit`
takes each cell's best value from a sweep of rates or batches (best_values), and `--rule` sets a grid's field by one.

None of the published sets was checked against the runs behind it: their data are not at hand."""

import math

from moe_jax.laws.forms import declare, exponent, positive, power

_FACTOR = positive(1e-3, 1e3, bounds=(1e-15, 1e15))
_POWER = exponent(-1, 1)
_LR, _BATCH = "learning_rate", "batch_tokens"
_STEP_LAW = "Li et al. 2025, Step Law (2503.04715; second-hand)"


@declare(
    formula="a * N^b * D^c",
    source=f"{_STEP_LAW}; N without embeddings, all experts; the batch tuned with the rate; cosine to 1e-5",
    columns={"N": "n_total_nonemb", "D": "tokens"},
    coefficients={"a": _FACTOR, "b": _POWER, "c": _POWER},
    published={"li2025": {"a": 1.79, "b": -0.713, "c": 0.307}},
    quantity=_LR,
)
def step_law_lr(N, D, a, b, c):
    return a * power(N, b) * power(D, c)


@declare(
    formula="a * D^b",
    source=f"{_STEP_LAW}; tokens of a batch, the rate tuned with it",
    columns={"D": "tokens"},
    coefficients={"a": _FACTOR, "b": _POWER},
    published={"li2025": {"a": 0.58, "b": 0.571}},
    quantity=_BATCH,
)
def step_law_batch(D, a, b):
    return a * power(D, b)


@declare(
    formula="a * N^b * D^c * G^e",
    source="ours: Step Law's form with a factor for granularity",
    columns={"N": "n_total_nonemb", "D": "tokens", "G": "granularity"},
    coefficients={"a": _FACTOR, "b": _POWER, "c": _POWER, "e": _POWER},
    quantity=_LR,
)
def granular_lr(N, D, G, a, b, c, e):
    return a * power(N, b) * power(D, c) * power(G, e)


@declare(
    formula="a * N^b * E^c",
    source="Ludziejewski et al. 2025 (2502.05172): exp(8.39 − .81 ln N − .25 ln E), N active, without embeddings",
    columns={"N": "n_active_nonemb", "E": "expansion_rate"},
    coefficients={"a": positive(1, 1e6, bounds=(1e-15, 1e15)), "b": _POWER, "c": _POWER},
    published={"ludziejewski2025": {"a": math.exp(8.39), "b": -0.81, "c": -0.25}},
    quantity=_LR,
)
def joint_moe2025_lr(N, E, a, b, c):
    return a * power(N, b) * power(E, c)


@declare(
    formula="a * D^b * d^c * B^(1 / 2)",
    source="Marin (marin-community/marin, experiments/grug/moe): the rate of Adam's parameters; sequences of 4,096",
    columns={"D": "tokens", "d": "d_model", "B": "batch_tokens"},
    coefficients={"a": _FACTOR, "b": _POWER, "c": _POWER},
    # v16 counts B in sequences; here in tokens, √4096 = 64 to one. Their AdamH and MuonH rates are 13/3 of these.
    published={
        "May recipe, E=256": {"a": 0.06602, "b": -0.395, "c": -0.150},
        "v16, E=64": {"a": 1.63 / 64, "b": -0.2813, "c": -0.3678},
    },
    quantity=_LR,
)
def marin_lr(D, d, B, a, b, c):
    return a * power(D, b) * power(d, c) * power(B, 0.5)


@declare(
    formula="a * C^b",
    source="ling2025: 2507.17702; deepseek2024: 2401.02954 (second-hand); their C leaves the unembedding out",
    columns={"C": "train_flops"},
    coefficients={"a": _FACTOR, "b": _POWER},
    published={"ling2025": {"a": 1.1576, "b": -0.1529}, "deepseek2024": {"a": 0.3118, "b": -0.125}},
    quantity=_LR,
)
def flops_lr(C, a, b):
    return a * power(C, b)


@declare(
    formula="a * C^b",
    source="ling2025: 2507.17702; deepseek2024: 2401.02954 (second-hand); their C leaves the unembedding out",
    columns={"C": "train_flops"},
    coefficients={"a": _FACTOR, "b": _POWER},
    published={"ling2025": {"a": 0.0694, "b": 0.3644}, "deepseek2024": {"a": 0.2920, "b": 0.3271}},
    quantity=_BATCH,
)
def flops_batch(C, a, b):
    return a * power(C, b)
