"""Times of fits, with scipy's optimisers beside ours:  python -m experiments.benchmarks.laws  (about a minute)

The losses are planted and have the shape of the papers' tables: 75 runs for krajewski2024, 240 for Hoffmann's grid, 60
for Abnar's. scipy gets the objective in numpy and some of the same starts; its time for all starts is scaled from
these."""

import argparse
import itertools
import json
import math
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from scipy import optimize

from experiments.benchmarks import results
from experiments.benchmarks.machine import processor
from moe_jax import laws
from moe_jax.laws import bootstrap, levenberg_marquardt, presets, starts
from moe_jax.laws.objective import Problem

FORMATS = {"what": "", "seconds": ".1f", "result": ""}
Row = tuple[str, float, str]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    results.add_flag(parser)
    out = parser.parse_args().out
    rows = [krajewski_with_bootstrap(), *hoffmann_grid_against_scipy(), abnar_grid(), from_the_shell()]
    results.show(
        results.Results(f"Fits; {processor()}", FORMATS, [dict(zip(FORMATS, r, strict=True)) for r in rows]), out
    )


def krajewski_with_bootstrap() -> Row:
    table = krajewski_runs()
    paper = presets.preset("krajewski2024")
    options = {"objective": paper.objective, "fix": paper.fix, "resampling": laws.Resampling(samples=1000)}
    seconds, fitted = timed(lambda: laws.fit(table, **options))
    return (
        "krajewski2024's preset, 75 runs, 128 starts, 1,000 bootstrap samples",
        seconds,
        f"{fitted.law.method.starts_at_best} starts at the best",
    )


def hoffmann_grid_against_scipy(part: int = 60) -> list[Row]:
    problem = hoffmann_problem()
    grid = starts.draw(problem.form, presets.preset("hoffmann2022").starts, {})
    free = np.ones(5, bool)
    seconds, (theta, best, at_best) = timed(lambda: levenberg_marquardt.search(problem, grid, free))
    boot = laws.Resampling(samples=4000)
    boot_seconds, _ = timed(lambda: bootstrap.resample(problem, theta, free, boot))
    rows = [
        (
            "Hoffmann's 4,500 starts, 240 points: ours",
            seconds,
            f"{at_best} of {len(grid)} at the best, {best:.8g}",
        ),
        ("… and 4,000 bootstrap samples", boot_seconds, f"{seconds + boot_seconds:.1f} s together"),
    ]
    some = grid[np.random.default_rng(0).permutation(len(grid))[:part]]
    objective = numpy_objective(problem)
    for name, method in {
        "scipy L-BFGS-B, finite differences": lambda t: optimize.minimize(objective, t, method="L-BFGS-B"),
        "scipy BFGS, finite differences": lambda t: optimize.minimize(objective, t, method="BFGS"),
        "scipy L-BFGS-B, our gradient": lambda t: optimize.minimize(
            value_and_gradient(problem), t, jac=True, method="L-BFGS-B"
        ),
    }.items():
        value_and_gradient(problem)(some[0])  # compile
        with np.errstate(all="ignore"):
            spent, found = timed(lambda method=method: [method(t).fun for t in some])
        everything = spent / part * (len(grid) + boot.samples)
        hits = int(np.sum(np.array(found) <= best * (1 + 1e-6)))
        rows.append(
            (
                f"{name}, {part} starts",
                spent,
                f"{1e3 * spent / part:.0f} ms a start, {hits} of {part} within 1e-6 of the best; all starts and samples"
                f" {everything:.0f} s, {everything / (seconds + boot_seconds):.0f}× ours",
            )
        )
    return rows


def abnar_grid() -> Row:
    truth, rng = laws.published("abnar2025"), np.random.default_rng(0)
    S, C = rng.choice([0, 0.25, 0.5, 0.75, 0.9, 0.95], 60), rng.choice([3e19, 6e19, 1e20, 3e20, 1e21], 60)
    N = np.exp(rng.uniform(np.log(2e8), np.log(2e10), 60))
    axes = {"N": N, "D": C / (6 * N * (1 - 0.75 * S)), "S": S}
    losses = truth.loss_at(axes) * np.exp(0.003 * rng.standard_normal(60))
    problem = Problem(truth.form, axes, losses, presets.preset("abnar2025").objective)

    grid = presets.preset("abnar2025").starts
    count = math.prod(map(len, grid.values()))

    def search():
        return levenberg_marquardt.search(problem, starts.choose(problem, grid, {}), np.ones(10, bool))

    seconds, (_, best, at_best) = timed(search)
    return (
        f"Abnar's {count:,} starts, 60 points: 8,192 of them finished",
        seconds,
        f"{at_best} at {best:.6g}",
    )


def from_the_shell() -> Row:
    with tempfile.TemporaryDirectory() as folder:
        krajewski_runs().to_csv(Path(folder) / "results.csv", index=False)
        command = [sys.executable, "-m", "moe_jax", "fit", "--workdir", folder]
        seconds, _ = timed(lambda: subprocess.run(command, check=True, capture_output=True))
        unidentified = json.loads((Path(folder) / "law.json").read_text())["unidentified"]
    return (
        "moe-jax fit from the shell, 75 runs, 1,000 samples",
        seconds,
        f"not identified: {' '.join(unidentified)}",
    )


def krajewski_runs() -> pd.DataFrame:
    """75 runs like those of the paper's Table 3, losses by its law with the scatter it leaves."""
    N = [135266304, 304349184, 541065216, 1082130432, 2113536000]
    cells = np.array(list(itertools.product(N, [16.4e9, 32.8e9, 65.5e9], [1, 2, 4, 8, 16])), float)
    table = dict(zip(("n_total_nonemb", "tokens", "granularity"), cells.T, strict=True))
    loss = laws.published("krajewski2024").loss_at(table)
    return pd.DataFrame({**table, "eval_loss": loss + 0.015 * np.random.default_rng(0).standard_normal(len(loss))})


def hoffmann_problem() -> Problem:
    rng, truth = np.random.default_rng(0), laws.published("chinchilla", "besiroglu2024")
    N = np.exp(rng.uniform(np.log(5e7), np.log(1e10), 240))
    axes = {"N": N, "D": np.exp(rng.uniform(np.log(6e18), np.log(3e21), 240)) / (6 * N)}
    losses = truth.loss_at(axes) * np.exp(0.006 * rng.standard_t(3, 240))
    return Problem(truth.form, axes, losses, laws.Objective(space="log", huber=1e-3))


def numpy_objective(problem: Problem) -> Callable[[np.ndarray], float]:
    """Hoffmann's objective in numpy, for scipy."""
    N, D = problem.columns
    log_n, log_d, target, delta = np.log(N), np.log(D), problem.target, problem.objective.huber

    def objective(theta):
        e, a, alpha, b, beta = theta
        terms = np.stack([a - alpha * log_n, b - beta * log_d, np.full_like(log_n, e)])
        top = terms.max(0)
        r = np.abs(top + np.log(np.exp(terms - top).sum(0)) - target)
        return np.where(r <= delta, 0.5 * r**2, delta * (r - 0.5 * delta)).sum()

    return objective


def value_and_gradient(problem: Problem) -> Callable:
    def both(theta):
        f, g, *_ = problem.normal_equations(theta[None], problem.weights[None])
        return float(f[0]), g[0]

    return both


def timed(work: Callable):
    began = time.perf_counter()
    result = work()
    return time.perf_counter() - began, result


if __name__ == "__main__":
    main()
