"""Information criteria of forms that were fitted to the same rows under the same objective."""

from collections.abc import Sequence

import numpy as np

from moe_jax.laws.objective import Problem


def share_outside(problem: Problem, theta: np.ndarray) -> float:
    """The share of the rows whose residual at theta (coefficients,) is beyond the objective's δ."""
    columns = dict(zip(problem.form.symbols, problem.columns, strict=True))
    losses = problem.form.loss(columns, problem.form.outer(theta))
    residual = np.log(losses / problem.losses) if problem.objective.space == "log" else losses - problem.losses
    return float((np.abs(residual) > problem.objective.huber * problem.widths).mean())


def criteria(problems: Sequence[Problem], thetas: Sequence[np.ndarray], n_free: Sequence[int]):
    """(AIC, BIC), each a difference to the lowest of these fits: how much more evidence the rows give for the best.

    −2 ln(likelihood) = (1 + outside) n ln f, up to what all fits share: the likelihood of `diagnostics.profile`'s
    deviance, whose residual scale is fitted too (normal where residuals are within δ, Laplace where they are beyond).
    f: the objective without its penalty, n: rows, outside: the share of rows beyond δ at the fit of lowest f. AIC adds
    2 for each free coefficient, BIC ln n. All problems have the same rows."""
    f = np.array([float(p.at(l1=0.0, l2=0.0).values(t[None])[0]) for p, t in zip(problems, thetas, strict=True)])
    best, n = int(f.argmin()), len(problems[0].losses)
    outside = share_outside(problems[best], thetas[best])
    minus_two_log = (1 + outside) * n * np.log(np.maximum(f, 1e-300))
    aic = minus_two_log + 2 * np.asarray(n_free)
    bic = minus_two_log + np.log(n) * np.asarray(n_free)
    return aic - aic.min(), bic - bic.min()
