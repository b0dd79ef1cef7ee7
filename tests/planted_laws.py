"""Runs whose losses a known law made, with noise: what a fit is to find again."""

import dataclasses

import numpy as np

from moe_jax import laws

QUICK = laws.Resampling(samples=0)
RANGES = {"N": (1e8, 1e10), "D": (4e9, 4e11), "U": (1e9, 4e11), "C": (1e18, 1e22), "w": (256, 4096), "l": (3, 80)}
RANGES |= {"A": (1e7, 1e8), "K": (1, 32)}
# What forms without published coefficients are planted with.
TYPICAL = {
    "farseer2025": dict(a1=-0.12, alpha=0.125, b1=0.42, a2=90, beta=-0.1, b2=-5.5, a3=-0.02, gamma=0.17, b3=0.2),
}
CHOICES = {"G": [1, 2, 4, 8, 16], "S": [0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98], "E": [1, 2, 4, 8, 16, 32, 64, 128, 512]}
CHOICES |= {"R": [0, 0.1, 0.2, 0.3, 0.5, 0.7]}


def grid(sizes=5, tokens=5, granularities=(1, 2, 4, 8, 16)):
    N, D, G = np.meshgrid(np.geomspace(1e8, 1e10, sizes), np.geomspace(4e9, 4e11, tokens), granularities, indexing="ij")
    return {"n_total_nonemb": N.ravel(), "tokens": D.ravel(), "granularity": G.ravel()}


def planted(law, table, noise, seed=0, coefficients=None):
    """A table with losses under a law near the published one, which is itself a start of every fit."""
    near = {k: 1.05 * v for k, v in laws.published(law).coefficients.items()}
    truth = dataclasses.replace(laws.published(law), coefficients=coefficients or near)
    loss = truth.loss_at(table)
    return {**table, "eval_loss": loss * np.exp(noise * np.random.default_rng(seed).standard_normal(loss.shape))}, truth


def design(form, runs, seed=0):
    """Runs spread at random over the form's axes, by results column."""
    rng = np.random.default_rng(seed)
    return {
        column: np.exp(rng.uniform(*np.log(RANGES[s]), runs)) if s in RANGES else rng.choice(CHOICES[s], runs)
        for s, column in form.columns.items()
    }


def moved(form):
    """A law near the published one, which is itself a start of every fit and would make recovery trivial."""
    published = next(iter(form.published.values()), TYPICAL.get(form.name))
    factors = 1 + 0.06 * np.resize([1, -1, 0.5], len(form.names))
    values = {k: v * f for (k, v), f in zip(published.items(), factors, strict=True)}
    return laws.Law(form=form, coefficients=values, data=laws.FitData(columns=form.columns))


def planted_runs(form, runs, noise, seed=0):
    """(table with losses, the law that made them) of a form's runs at random."""
    truth, table = moved(form), design(form, runs)
    scatter = np.random.default_rng(seed).standard_normal(runs)
    return {**table, "eval_loss": truth.loss_at(table) * np.exp(noise * scatter)}, truth


def budgets_of(law, budgets, sizes, noise=0.0):
    """Runs at N = optimum × sizes for each budget under a chinchilla law, C = 6ND."""
    plans = [laws.Planner(law).best(C) for C in budgets]
    N = np.concatenate([p.values["n_total"] * np.asarray(sizes) for p in plans])
    C = np.repeat(budgets, len(sizes))
    loss = law.loss_at({"N": N, "D": C / (6 * N)}) + noise * np.random.default_rng(0).standard_normal(len(N))
    return N, C / (6 * N), C, loss


def planted_surface(noise):
    """(N, S, losses) of a surface of degree two in ln N and −ln(1 − S), with its products up to the square."""
    N, S = (a.ravel() for a in np.meshgrid(np.geomspace(1e8, 1e10, 7), [0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98]))
    n, s = np.log(N), -np.log1p(-S)
    loss = 40 - 3.55 * n + 0.085 * n**2 + 0.9 * s + 0.05 * s**2 - 0.05 * n * s + 2e-5 * (n * s) ** 2
    return N, S, loss + noise * np.random.default_rng(0).standard_normal(len(N))
