"""Laws of sparse models: Mixtures of Experts, and weight sparsity."""

from moe_jax.laws.forms import declare, exponent, log, positive, power


@declare(
    formula="c + (g * G^-gamma + a) * N^-alpha + b * D^-beta",
    source="Krajewski et al. 2024 (2402.07871) Eq. 9; N is the total of non-embedding parameters, d²(8E+4)·n_layers",
    columns={"N": "n_total_nonemb", "D": "tokens", "G": "granularity"},
    cost="flops_krajewski2024",
    coefficients={
        "c": positive(0.05, 3),
        "g": positive(0.01, 30),
        "gamma": exponent(0.05, 1.2, bounds=(-4, 4)),
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
    holds_at={
        "E=64": {"expansion_rate": 64},
        "E=64, Table 5": {"expansion_rate": 64},
        "E=16, Table 8": {"expansion_rate": 16},
    },
)
def krajewski2024(N, D, G, c, g, gamma, a, alpha, b, beta):
    return c + (g * power(G, -gamma) + a) * power(N, -alpha) + b * power(D, -beta)


def saturated(E, E_start, E_max):
    """Ê of Clark et al. 2022: E_start at E = 1, about E in between, E_max for E → ∞."""
    return 1 / (1 / (E - 1 + 1 / (1 / E_start - 1 / E_max)) + 1 / E_max)


# Bounds that keep 1/E_start − 1/E_max above zero. Where all runs have E ≤ 32, Ê hardly bends, and noise alone may put
# E_max at either bound; from 10 instead of 50 the optima were the same (docs/laws_forms.md).
_E_START = positive(1.1, 5, bounds=(1 + 1e-6, 40))
_E_MAX = positive(100, 1000, bounds=(50, 1e9))


@declare(
    formula="a * E_hat^delta * N^(alpha + gamma * log(E_hat)) + b * E_hat^omega * D^(beta + zeta * log(E_hat)) + c"
    "; E_hat = saturated(E, E_start, E_max)",
    source="Ludziejewski et al. 2025 (2502.05172) Eq. 6, Table 3; N_act with embeddings and unembedding; top-1, G = 1",
    columns={"N": "n_active", "D": "tokens", "E": "expansion_rate"},
    cost="flops_6nd",
    coefficients={
        "a": positive(5, 500),
        "alpha": exponent(-0.4, -0.05),
        "delta": exponent(-0.5, 0.5),
        "gamma": exponent(-0.03, 0.03),
        "b": positive(5, 500),
        "beta": exponent(-0.4, -0.05),
        "omega": exponent(-0.5, 1),
        "zeta": exponent(-0.05, 0.05),
        "E_start": _E_START,
        "E_max": _E_MAX,
        "c": positive(0.3, 2),
    },
    published={
        "joint_moe2025": {
            "a": 35.91,
            "alpha": -0.1889,
            "delta": -0.2285,
            "gamma": 0.0098,
            "b": 35.98,
            "beta": -0.1775,
            "omega": 0.5529,
            "zeta": -0.0259,
            "E_start": 2.0732,
            "E_max": 290.4521,
            "c": 1.3637,
        },
    },
)
def joint_moe2025(N, D, E, a, alpha, delta, gamma, b, beta, omega, zeta, E_start, E_max, c):
    E_hat = saturated(E, E_start, E_max)
    return (
        a * power(E_hat, delta) * power(N, alpha + gamma * log(E_hat))
        + b * power(E_hat, omega) * power(D, beta + zeta * log(E_hat))
        + c
    )


@declare(
    formula="10^(a * n + b * e + c * n * e + d); n = log(N) / log(10); e = log(saturated(E, E_start, E_max)) / log(10)",
    source="Clark et al. 2022 (2202.01169) Eq. 7, log10; N is the dense model's; 130B tokens throughout",
    columns={"N": "n_active", "E": "n_experts"},
    coefficients={
        "a": exponent(-0.15, -0.04),
        "b": exponent(-0.2, -0.04),
        "c": exponent(-0.005, 0.03),
        "d": exponent(0.7, 1.5),
        "E_start": _E_START,
        "E_max": _E_MAX,
    },
    published={
        "S-BASE": {"a": -0.082, "b": -0.108, "c": 0.009, "d": 1.104, "E_start": 1.847, "E_max": 314.478},
        "RL-R": {"a": -0.083, "b": -0.126, "c": 0.012, "d": 1.111, "E_start": 1.880, "E_max": 469.982},
        "HASH": {"a": -0.087, "b": -0.136, "c": 0.012, "d": 1.157, "E_start": 4.175, "E_max": 477.741},
    },
)
def clark2022(N, E, a, b, c, d, E_start, E_max):
    n = log(N) / log(10)
    e = log(saturated(E, E_start, E_max)) / log(10)
    return power(10, a * n + b * e + c * n * e + d)


@declare(
    formula="a * N^-alpha + b * D^-beta + c * (1 - S)^-lambda + d * (1 - S)^-delta * N^-gamma + e",
    source="Abnar et al. 2025 (2501.12370) Eq. 6, Table 3; N is the total, S the share of experts not used",
    columns={"N": "n_total", "D": "tokens", "S": "sparsity"},
    cost="flops_abnar2025",
    shares={"S"},
    coefficients={
        "a": positive(1, 1e8),
        "alpha": exponent(0.1, 1.2),
        "b": positive(1, 1e8),
        "beta": exponent(0.1, 1.2),
        "c": positive(0.05, 100),
        "lambda": exponent(-1, 0.5),
        "d": positive(1, 1e4),
        "delta": exponent(-0.5, 1),
        "gamma": exponent(0.05, 1),
        "e": positive(0.1, 3),
    },
    published={
        "abnar2025": {
            "a": 16612.50,
            "alpha": 0.5962,
            "b": 5455.67,
            "beta": 0.3954,
            "c": 0.4598,
            "lambda": -0.1666,
            "d": 17.26,
            "delta": 0.1603,
            "gamma": 0.1595,
            "e": 0.94,
        },
    },
)
def abnar2025(N, D, S, a, alpha, b, beta, c, lambda_, d, delta, gamma, e):
    return (
        a * power(N, -alpha)
        + b * power(D, -beta)
        + c * power(1 - S, -lambda_)
        + d * power(1 - S, -delta) * power(N, -gamma)
        + e
    )


@declare(
    formula="(a_S * (1 - S)^b_S + c_S) * N^-b_N + (a_D / D)^b_D + c",
    source="Frantar et al. 2023 (2309.08520) Eq. 1; S is weight sparsity, N the parameters that are not zero",
    columns={"N": "n_active", "D": "tokens", "S": "sparsity"},
    cost="flops_6nd",
    shares={"S"},
    coefficients={
        "a_S": positive(1, 1e4),
        "b_S": exponent(0.2, 1.5),
        "c_S": positive(1, 1e4),
        "b_N": exponent(0.05, 0.6),
        "a_D": positive(1e6, 1e11),
        "b_D": exponent(0.05, 1),
        "c": positive(0.1, 5),
    },
    published={
        "T5 on C4": {"a_S": 16.8, "b_S": 0.722, "c_S": 45.0, "b_N": 0.245, "a_D": 6.90e8, "b_D": 0.203, "c": 0.651},
        "ViT on JFT": {"a_S": 294, "b_S": 0.821, "c_S": 468, "b_N": 0.392, "a_D": 2.37e8, "b_D": 0.890, "c": 4.517},
    },
)
def frantar2023(N, D, S, a_S, b_S, c_S, b_N, a_D, b_D, c):
    return (a_S * power(1 - S, b_S) + c_S) * power(N, -b_N) + power(a_D / D, b_D) + c


@declare(
    formula="(e * K + f / K + m * R^2 + n * R) * (N^-alpha + k * A^-alpha + h * A / N)"
    " + a * N^-alpha + b * D^-beta + c * A^-alpha + epsilon",
    source="Zhao et al. 2025 (2509.23678), second-hand: form and coefficients from two notes on the paper, not from it;"
    " K experts are active (the paper's G), R is the share of shared ones (its S), A the active parameters (its N_a)",
    columns={"N": "n_total", "D": "tokens", "A": "n_active", "K": "top_k", "R": "shared_share"},
    cost="flops_6nd",
    shares={"R"},
    coefficients={
        "e": positive(0.01, 1),
        "f": positive(1, 30),
        "m": exponent(1, 10, bounds=(-1e4, 1e4)),
        "n": exponent(-8, 0, bounds=(-1e4, 1e4)),
        "k": positive(1e-4, 1),
        "h": positive(1e-3, 1),
        "a": positive(5, 500),
        "alpha": exponent(0.1, 0.5),
        "b": positive(100, 1e6),
        "beta": exponent(0.1, 0.8),
        "c": positive(5, 500),
        "epsilon": positive(0.5, 3),
    },
    published={
        "second-hand": {
            "e": 0.1577,
            "f": 7.2446,
            "m": 5.1395,
            "n": -3.2363,
            "k": 0.0013,
            "h": 0.0450,
            "a": 38.051,
            "alpha": 0.2383,
            "b": 27129.05,
            "beta": 0.4694,
            "c": 31.096,
            "epsilon": 1.8182,
        },
    },
)
def zhao2025(N, D, A, K, R, e, f, m, n, k, h, a, alpha, b, beta, c, epsilon):
    experts = e * K + f / K + m * R**2 + n * R
    coupled = power(N, -alpha) + k * power(A, -alpha) + h * A / N
    return experts * coupled + a * power(N, -alpha) + b * power(D, -beta) + c * power(A, -alpha) + epsilon
