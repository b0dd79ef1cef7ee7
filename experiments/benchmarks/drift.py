"""Coverage of prediction bands where the form is wrong:  python -m experiments.benchmarks.drift  [--replications=R]

Losses are planted with a form and a drift that it lacks, on iso-FLOP and grid designs. The form is fitted to all but
the top two budgets, and its 80% bands are laid over the runs of these. Width: the median of the bands over the
narrowest band of one width that would have held 80% of the same errors."""

import argparse
import itertools
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from moe_jax import laws
from moe_jax.cli import tables

TRUTHS = {"chinchilla": laws.published("chinchilla", "besiroglu2024"), "krajewski2024": laws.published("krajewski2024")}
FIX = {"chinchilla": {}, "krajewski2024": {"c": 0.472}}
LEVEL = 0.8


@dataclass(frozen=True)
class Design:
    """Runs by symbol, and the budget of each, counted from 0."""

    form: str
    axes: dict[str, np.ndarray]
    budget: np.ndarray


def iso_flop(budgets: int) -> Design:
    """Seven sizes from a fifth to five times D = 20 N at each budget, budgets three times apart."""
    C = 6e18 * 3.0 ** np.arange(budgets)
    N = np.sqrt(C[:, None] / 120) * np.geomspace(0.2, 5, 7)
    return Design("chinchilla", {"N": N.ravel(), "D": (C[:, None] / 6 / N).ravel()}, np.repeat(np.arange(budgets), 7))


def grid(form: str, N: np.ndarray, D: np.ndarray, G: list[float]) -> Design:
    """All combinations; a budget is a seventh of the range of ln(N · D)."""
    axes = dict(zip("NDG", (x.ravel() for x in np.meshgrid(N, D, G, indexing="ij")), strict=True))
    cost = np.log(axes["N"] * axes["D"])
    budget = np.digitize(cost, np.linspace(cost.min(), cost.max() + 1e-6, 8)) - 1
    return Design(form, {s: axes[s] for s in TRUTHS[form].form.symbols}, budget)


DESIGNS = {
    "iso-FLOP, 7 budgets": iso_flop(7),
    "iso-FLOP, 5 budgets": iso_flop(5),
    "grid, N and D": grid("chinchilla", np.geomspace(5e7, 3.2e9, 7), np.geomspace(1e9, 6.4e10, 7), [1]),
    "grid, N, D and G": grid("krajewski2024", np.geomspace(1e8, 4e9, 5), np.geomspace(4e9, 1.6e11, 5), [1, 4, 16]),
}


def _decades(x: np.ndarray) -> np.ndarray:
    return np.log10(x / x.min())


# Nats that a run gains by its axes (N, D), for a drift of size one; the sign is drawn.
DRIFTS: dict[str, Callable[[np.ndarray, np.ndarray], np.ndarray]] = {
    "none": lambda N, D: 0 * N,
    "irreducible loss, 0.02 a decade of C": lambda N, D: 0.02 * _decades(N * D),
    "irreducible loss, quadratic in ln C": lambda N, D: 0.006 * _decades(N * D) ** 2,
    "exponent of N, 0.01 a decade": lambda N, D: (
        482.01 * N**-0.3478 * (10 ** (-0.01 * _decades(N) * np.log10(N / N.min())) - 1) * np.log(10)
    ),
    "exponent of D, 0.01 a decade": lambda N, D: 2085.43 * D**-0.3658 * (10 ** (-0.01 * _decades(D) ** 2 * 2) - 1),
    "a term in N · D": lambda N, D: 0.3 * (N / N.min()) ** -0.15 * (D / D.min()) ** -0.25,
    "a term in D / N": lambda N, D: 0.01 * np.log(D / N / 20) ** 2 / np.log(5) ** 2 * (N * D / (N * D).min()) ** 0.1,
}


@dataclass(frozen=True)
class Outcome:
    """The bands of one replication on the runs of the top two budgets, each (runs,) nats; before: without the term."""

    error: np.ndarray  # measured − predicted
    width: np.ndarray
    inside: np.ndarray
    inside_before: np.ndarray


def replicate(design: Design, drift: str, noise: float, seed: int, samples: int) -> Outcome:
    """Plants, fits and predicts once."""
    rng = np.random.default_rng(seed)
    size = rng.choice([-1, 1]) * rng.uniform(0.5, 1.5)
    truth = TRUTHS[design.form]
    loss = truth.loss_at(design.axes) + size * DRIFTS[drift](design.axes["N"], design.axes["D"])
    loss = loss * np.exp(noise * rng.standard_normal(len(loss)))
    top = design.budget >= design.budget.max() - 1
    columns = {truth.form.columns[s]: v for s, v in design.axes.items()} | {"eval_loss": loss}
    table = {k: v[~top] for k, v in columns.items()}
    law = laws.fit(
        table, design.form, fix=FIX[design.form], start=4, resampling=laws.Resampling(samples=samples, level=LEVEL)
    ).law
    bands = law.bands({k: v[top] for k, v in columns.items()})
    low, high = bands.together()
    plain = laws.Bands(bands.value, bands.law, bands.noise, 0 * bands.beyond).together()
    measured = loss[top]
    return Outcome(
        measured - bands.value,
        high - low,
        (low <= measured) & (measured <= high),
        (plain[0] <= measured) & (measured <= plain[1]),
    )


def row(design: str, drift: str, noise: float, replications: int, samples: int) -> tuple[float, float, float, float]:
    """(coverage without the term, coverage, width over the narrowest's, half the narrowest) of all replications."""
    found = [replicate(DESIGNS[design], drift, noise, seed, samples) for seed in range(replications)]
    error, width, inside, before = (
        np.concatenate([getattr(f, k) for f in found]) for k in ("error", "width", "inside", "inside_before")
    )
    narrowest = float(np.quantile(np.abs(error), LEVEL))
    return float(before.mean()), float(inside.mean()), float(np.median(width)) / (2 * narrowest), narrowest


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--replications", type=int, default=10)
    parser.add_argument("--samples", type=int, default=60)
    flags = parser.parse_args()
    began, lines, drifting, good = time.perf_counter(), [], [], 0
    for noise, design, drift in itertools.product((0.001, 0.003), DESIGNS, DRIFTS):
        before, inside, width, narrowest = row(design, drift, noise, flags.replications, flags.samples)
        good += 0.7 <= inside <= 0.95 and width <= 2
        if drift != "none":
            drifting.append((before, inside, width))
        cells = (f"{before:.2f}", f"{inside:.2f}", f"{width:.2f}", f"{narrowest:.4f}")
        lines.append((design, drift, f"{noise:.1%}", *cells))
        print(*lines[-1], sep=" | ", file=sys.stderr, flush=True)
    heads = ("design", "drift", ">noise", ">without the term", ">covered", ">width", ">± narrowest, nats")
    tables.show(tables.Table(heads, lines))
    before, inside, width = np.mean(drifting, axis=0)
    print(f"mean of those with drift: {before:.2f} without the term, {inside:.2f} covered, width {width:.2f}")
    print(
        f"{good} of {len(lines)} cells: covered .7 to .95, width at most 2; {flags.replications} replications,"
        f" {flags.samples} bootstrap samples, {time.perf_counter() - began:.0f} s"
    )


if __name__ == "__main__":
    main()
