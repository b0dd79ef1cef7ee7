"""Bias of iso-FLOP minima on grids off the minimum, and how often the warning fires.

    python -m experiments.benchmarks.isoflop_bias        # about two minutes on one CPU

Nine sizes within a factor `span` of `centre` × the optimum of a planted law at 1e20 FLOPs. bias: ln of the minimum
over the truth, without noise, by method; half: half the parabola's 80% interval in ln N (median of sweeps with noise);
outside: the truth lies outside the parabola's median interval; warned: share of sweeps with the warning."""

import numpy as np
import pandas as pd

from moe_jax import laws
from moe_jax.laws.isoflop import minima, one_budget

C, SIZES, SWEEPS, SAMPLES = 1e20, 9, 30, 100
CENTRES, SPANS, NOISES = (1 / 8, 1 / 4, 1 / 2, 1, 2, 4, 8), (2, 4, 8, 16), (0.0005, 0.002, 0.005)


def measure(coefficients: str) -> pd.DataFrame:
    """A row for each grid and noise under Chinchilla's form with published coefficients."""
    law = laws.published("chinchilla", coefficients)
    fine = np.geomspace(1e7, 1e12, 200_001)
    best = fine[law.loss_at({"N": fine, "D": C / (6 * fine)}).argmin()]
    grids = [(c, s) for c in CENTRES for s in SPANS if c / s < 1 < c * s]
    return pd.DataFrame([_row(law, best, *grid, noise) for noise in NOISES for grid in grids])


def _row(law, best: float, centre: float, span: float, noise: float) -> dict:
    N = best * centre * np.geomspace(1 / span, span, SIZES)
    exact = law.loss_at({"N": N, "D": C / (6 * N)})
    biases = {m: f(np.log(N), exact).at - np.log(best) for m, f in one_budget.METHODS.items()}
    found = []
    for seed in range(SWEEPS):
        loss = exact + noise * np.random.default_rng(seed).standard_normal(SIZES)
        resampling = laws.Resampling(samples=SAMPLES, seed=seed)
        fitted = minima.fit(N, C / (6 * N), np.full(SIZES, C), loss, resampling=resampling)
        found.append(fitted.table.iloc[0].to_dict() | {"warned": bool(fitted.warnings)})
    sweeps = pd.DataFrame(found)
    sweeps = sweeps[sweeps["usable"]]
    low, high = sweeps["N_low"].median(), sweeps["N_high"].median()
    return {
        "noise": noise, "centre": centre, "span": span, **biases, "half": np.log(high / low) / 2,
        "outside": not low <= best <= high, "warned": sweeps["warned"].mean(),
    }  # fmt: skip


def main() -> None:
    for name in ("besiroglu2024", "hoffmann2022"):
        table = measure(name)
        print(f"{name}\n{table.round(3).to_string(index=False)}")
        above = table["parabola"].abs()
        for what, rows in (
            ("bias above 1.25 half-widths", above > 1.25 * table["half"]),
            ("truth outside the interval", table["outside"]),
            ("truth inside the interval", ~table["outside"]),
        ):
            print(f"{what}: {rows.sum()} grids, warned in {table['warned'][rows].mean():.0%} of the sweeps")
        for method in one_budget.METHODS:
            print(f"largest bias of {method}: {np.expm1(table[method].abs().max()):.1%}")


if __name__ == "__main__":
    main()
