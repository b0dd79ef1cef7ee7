"""The law of repeated data: loss from parameters, tokens, and how many of the tokens are different ones."""

import math

from moe_jax.laws.forms import declare, exp, minimum, positive, power


def saturating(unique, all_of_them, scale):
    """What `all_of_them` are worth in `unique` ones: each repetition is worth less, `scale` of them at most.

    Muennighoff et al. 2023, Eq. 5 and 6: u + u R* (1 − e^(−R / R*)) with R = all_of_them / u − 1 repetitions."""
    return unique * (1 + scale * (1 - exp(-(all_of_them / unique - 1) / scale)))


@declare(
    formula="E + A * saturating(n, N, R_N)^-alpha + B * saturating(u, D, R_D)^-beta; u = min(U, D)"
    "; G = (alpha * A / (beta * B))^(1 / (alpha + beta)); n = min(N, G * (G * u)^(beta / alpha))",
    source="Muennighoff et al. 2023 (2305.16264) Eq. 5 to 7 and 17: n is the size that u tokens are optimal for; C4",
    columns={"N": "n_total", "D": "tokens", "U": "unique_tokens"},
    cost="flops_6nd",
    coefficients={
        "E": positive(0.3, 3),
        "A": positive(10, 1e5),
        "alpha": positive(0.1, 0.8),
        "B": positive(10, 1e5),
        "beta": positive(0.1, 0.8),
        "R_N": positive(1, 30),
        "R_D": positive(1, 60),
    },
    # Unrounded, from appendix A: 1.87, 521, .35, 1488, .35 in print; the paper holds alpha = beta.
    published={
        "muennighoff2023": {
            "E": math.exp(0.6254804),
            "A": math.exp(6.255414),
            "alpha": 0.3526596,
            "B": math.exp(7.3049974),
            "beta": 0.3526596,
            "R_N": 5.309743,
            "R_D": 15.387756,
        },
    },
)
def muennighoff2023(N, D, U, E, A, alpha, B, beta, R_N, R_D):
    u = minimum(U, D)
    G = power(alpha * A / (beta * B), 1 / (alpha + beta))
    n = minimum(N, G * power(G * u, beta / alpha))
    return E + A * power(saturating(n, N, R_N), -alpha) + B * power(saturating(u, D, R_D), -beta)
