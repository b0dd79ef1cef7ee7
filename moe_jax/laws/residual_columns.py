"""Which columns explain what a law leaves over: its own axes, and columns that it has no term for.

    laws.explain_residuals(fitted)      # one row a column, the largest share first

Learning rate, depth, batch size, schedule: a column that explains much of the residuals belongs into the law, or should
have been tuned."""

import re

import numpy as np
import pandas as pd
from scipy import stats

from moe_jax.laws.fitting import Fit

_GROUPS = 8  # a number with at most so many values is a group each
_ROWS_A_WORD = 5  # a column of words with fewer rows to a word says which run it is, not how it was trained
_TOGETHER = 0.95  # |Spearman's ρ| from which two columns cannot be told apart
# Measured with the loss, so they explain residuals without being a reason; and names.
_OUTCOMES = re.compile(
    r"loss|bits_per|perplexity|accuracy|score|^name$|hash|commit|^status$|sha256|seconds|^mfu$", re.I
)


def explain_residuals(fitted: Fit) -> pd.DataFrame:
    """A table of columns, the one that explains most first.

    column; symbol: the law's, "" for a column outside the law; values: how many; spearman: rank correlation with the
    residual (NaN for words); share: of the residuals' variance explained (adjusted R² of group means for words and for
    numbers of at most 8 values, else of a parabola in ranks), about 0 for a column without a relation; p: probability
    of such a share by chance (F test, Holm's correction for the number of columns); moves_with: a symbol of the law
    that the column cannot be told apart from.

    Residuals are measured − predicted of the fitted runs. Columns with one value, outcomes (losses, scores, times),
    names and columns of words with less than 5 rows to a word are left out."""
    train = ~fitted.held_out
    residuals, table = fitted.residuals[train], fitted.rows.table[train]
    axes = {s: v[train] for s, v in fitted.rows.columns.items()}
    candidates = {(fitted.rows.sources.get(s, s), s): pd.Series(v) for s, v in axes.items()}
    beside = [c for c in table.columns if c not in fitted.rows.sources.values() and not _OUTCOMES.search(str(c))]
    candidates |= {(str(c), ""): table[c].reset_index(drop=True) for c in beside if c != fitted.law.data.loss}
    rows = [
        {"column": column, "symbol": symbol} | found | {"moves_with": "" if symbol else _twin(values, axes)}
        for (column, symbol), values in candidates.items()
        if (found := _explained(values, residuals)) is not None
    ]
    columns = ["column", "symbol", "values", "spearman", "share", "p", "moves_with"]
    found = pd.DataFrame(rows, columns=columns)
    found["p"] = _holm(found["p"].to_numpy(float))
    return found.sort_values("share", ascending=False, ignore_index=True, kind="stable")


def is_words(values: pd.Series) -> bool:
    """Whether a column holds words, or truths, instead of numbers."""
    return not pd.api.types.is_numeric_dtype(values) or pd.api.types.is_bool_dtype(values)


def _explained(values: pd.Series, residuals: np.ndarray) -> dict | None:
    """values, spearman, share and p of one column; None where it has one value, or too many words."""
    known = values.notna().to_numpy()
    if known.sum() < 4 or values[known].nunique() < 2:
        return None
    kept, y = values[known], residuals[known]
    distinct, words = int(kept.nunique()), is_words(values)
    if words and distinct > len(kept) / _ROWS_A_WORD:
        return None
    if words or distinct <= _GROUPS:
        X = pd.get_dummies(kept.astype(str)).to_numpy(float)[:, 1:]
    else:
        rank = stats.rankdata(kept) / len(kept) - 0.5
        X = np.stack([rank, rank**2], axis=1)
    rho = np.nan if words or np.ptp(y) == 0 else float(stats.spearmanr(kept, y).statistic)
    share, p = _adjusted_r2(X, y)
    return {"values": distinct, "spearman": rho, "share": share, "p": p}


def _adjusted_r2(X: np.ndarray, y: np.ndarray) -> tuple[float, float]:
    """(adjusted R², p of the F test) of least squares on X and a constant; (0, 1) where nothing is left to explain."""
    n, k = X.shape
    total = float(((y - y.mean()) ** 2).sum())
    if n - k - 1 <= 0 or total == 0:
        return 0.0, 1.0
    full = np.column_stack([np.ones(n), X])
    left = float(((y - full @ np.linalg.lstsq(full, y, rcond=None)[0]) ** 2).sum())
    share = 1 - (left / (n - k - 1)) / (total / (n - 1))
    if left <= 0:
        return 1.0, 0.0
    return share, float(stats.f.sf(((total - left) / k) / (left / (n - k - 1)), k, n - k - 1))


def _twin(values: pd.Series, axes: dict[str, np.ndarray]) -> str:
    """The law's symbol whose ranks the column has; "" for none."""
    if is_words(values) or values.isna().any():
        return ""
    for symbol, axis in axes.items():
        if np.ptp(axis) > 0 and abs(stats.spearmanr(values, axis).statistic) >= _TOGETHER:
            return symbol
    return ""


def _holm(p: np.ndarray) -> np.ndarray:
    """Holm's step-down correction for the number of tests."""
    order = np.argsort(p)
    corrected = np.empty_like(p)
    corrected[order] = np.minimum(1, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return corrected
