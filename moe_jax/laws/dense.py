"""Laws of dense models: loss from parameters and tokens."""

import math

from moe_jax.laws.forms import declare, exp, exponent, positive, power


@declare(
    formula="E + A * N^-alpha + B * D^-beta",
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
        # Unrounded, from the paper's TeX source; 1.69, 406.4, .34, 410.7, .28 in print.
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
    formula="((N_c / N)^(alpha_N / alpha_D) + D_c / D)^alpha_D",
    source="Kaplan et al. 2020 (2001.08361) Eq. 1.5 and Table 2; N without embeddings; WebText2, no irreducible loss",
    columns={"N": "n_active_nonemb", "D": "tokens"},
    cost="flops_6nd",
    coefficients={
        "N_c": positive(1e10, 1e16),
        "alpha_N": exponent(0.03, 0.3),
        "D_c": positive(1e10, 1e16),
        "alpha_D": exponent(0.03, 0.4, bounds=(1e-3, 8)),
    },
    published={"kaplan2020": {"N_c": 6.4e13, "alpha_N": 0.076, "D_c": 1.8e13, "alpha_D": 0.103}},
)
def kaplan2020(N, D, N_c, alpha_N, D_c, alpha_D):
    return power(power(N_c / N, alpha_N / alpha_D) + D_c / D, alpha_D)


@declare(
    formula="E + (a * (D / N)^eta + b * (D / N)^-eta) * (6 * N * D)^-eta",
    source="Gadre et al. 2024 (2403.08540) Eq. 4, trained on M = D/N tokens a parameter with C = 6ND; loss on C4",
    columns={"N": "n_total", "D": "tokens"},
    cost="flops_6nd",
    coefficients={
        "E": positive(0.3, 3),
        "a": positive(1, 1e4),
        "b": positive(1, 1e4),
        "eta": exponent(0.03, 0.4),
    },
    published={
        "C4": {"E": 1.508, "a": 141.3, "b": 189.5, "eta": 0.1212},
        "RedPajama": {"E": 1.837, "a": 212.2, "b": 366.7, "eta": 0.1364},
        "RefinedWeb": {"E": 1.734, "a": 157.1, "b": 246.2, "eta": 0.1272},
    },
)
def gadre2024(N, D, E, a, b, eta):
    return E + (a * power(D / N, eta) + b * power(D / N, -eta)) * power(6 * N * D, -eta)


@declare(
    formula="c + a * N^-alpha + b * D^-beta",
    source="Krajewski et al. 2024 (2402.07871) Eq. 1, Table 1: the dense models beside their Mixtures of Experts",
    columns={"N": "n_active_nonemb", "D": "tokens"},
    cost="flops_krajewski2024",
    coefficients={
        "c": positive(0.05, 3),
        "a": positive(1, 1e5),
        "alpha": exponent(),
        "b": positive(1, 1e6),
        "beta": exponent(),
    },
    # Table 1 prints c = .47; the code holds it at .472 for dense and MoE models alike.
    published={"Table 1": {"c": 0.472, "a": 16.3, "alpha": 0.126, "b": 26.7, "beta": 0.127}},
)
def krajewski2024_dense(N, D, c, a, alpha, b, beta):
    return c + a * power(N, -alpha) + b * power(D, -beta)


@declare(
    formula="E + A * C^-alpha",
    source="Marin's MoE iso-FLOP sweep v16 (experiments/grug/moe): E = 64, top-4; of compute-optimal points alone",
    columns={"C": "train_flops"},
    coefficients={"E": positive(0.3, 3), "A": positive(1, 1e4), "alpha": exponent(0.02, 0.3)},
    published={"Paloma macro loss": {"E": 1.6, "A": 95.18, "alpha": 0.0941}},
    holds_at={"Paloma macro loss": {"expansion_rate": 64}},
)
def frontier(C, E, A, alpha):
    return E + A * power(C, -alpha)


# The paper's coefficients could not be checked, so none are published here.
@declare(
    formula="exp(a3 * N^gamma + b3) + exp(a2 * N^beta + b2) * D^(-exp(a1 * N^alpha + b1))",
    source="Farseer, Li et al. 2025 (2506.10972); the form only; N without embeddings",
    columns={"N": "n_active_nonemb", "D": "tokens"},
    cost="flops_6nd",
    coefficients={
        "a1": exponent(-1, -0.01),
        "alpha": exponent(0.05, 0.3, bounds=(1e-3, 2)),
        "b1": exponent(-1, 1),
        "a2": exponent(1, 100, bounds=(-1e4, 1e4)),
        "beta": exponent(-0.3, -0.05, bounds=(-2, -1e-3)),
        "b2": exponent(-8, 4, bounds=(-100, 100)),
        "a3": exponent(-0.2, -0.005),
        "gamma": exponent(0.05, 0.3, bounds=(1e-3, 2)),
        "b3": exponent(-1, 2),
    },
)
def farseer2025(N, D, a1, alpha, b1, a2, beta, b2, a3, gamma, b3):
    return exp(a3 * power(N, gamma) + b3) + exp(a2 * power(N, beta) + b2) * power(D, -exp(a1 * power(N, alpha) + b1))


@declare(
    formula="E + A * w^-alpha + B * l^-beta + C * N^-gamma + F * D^-zeta",
    source="Gemstones, McLeish et al. 2025 (2502.06857), from the authors' files (δ = 1e-4); w is width, l depth",
    columns={"w": "d_model", "l": "n_layers", "N": "n_total", "D": "tokens"},
    cost="flops_6nd",
    coefficients={
        "E": positive(0.3, 3),
        "A": positive(0.1, 100),
        "alpha": exponent(),
        "B": positive(0.1, 10),
        "beta": exponent(),
        "C": positive(1, 1e5),
        "gamma": exponent(),
        "F": positive(1, 1e6),
        "zeta": exponent(),
    },
    published={
        "all checkpoints": {
            "E": math.exp(0.39245797),
            "A": math.exp(1.4520106404),
            "alpha": 0.2446914313,
            "B": math.exp(-0.0781020281),
            "beta": 0.3871516764,
            "C": math.exp(7.9700333376),
            "gamma": 0.5000838843,
            "F": math.exp(10.0594263846),
            "zeta": 0.4761055541,
        },
        "above 100B tokens": {
            "E": math.exp(0.4282048563),
            "A": math.exp(1.082043835),
            "alpha": 0.2195783536,
            "B": math.exp(-0.2186969889),
            "beta": 0.4758917337,
            "C": math.exp(6.0902355695),
            "gamma": 0.3636454068,
            "F": math.exp(10.4720427681),
            "zeta": 0.4935127042,
        },
    },
)
def gemstones2025(w, l, N, D, E, A, alpha, B, beta, C, gamma, F, zeta):  # noqa: E741 (l layers, as in the formula)
    return E + A * power(w, -alpha) + B * power(l, -beta) + C * power(N, -gamma) + F * power(D, -zeta)
