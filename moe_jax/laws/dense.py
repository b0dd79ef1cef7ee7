"""Laws of dense models: loss from parameters and tokens."""

import math

from moe_jax.laws.forms import declare, exponent, positive, power


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
