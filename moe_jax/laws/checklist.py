"""What a reader must know of a fitted law before trusting it: the checklist of Li et al. 2025, "(Mis)Fitting".

Form, what N, D and C count, hyper-parameters, checkpoints, objective, starts, held-out runs: sentences made from the
fit and its table. Where the table does not tell, the sentence says that."""

from dataclasses import replace

import numpy as np
import pandas as pd

from moe_jax.laws.forms import LOSS
from moe_jax.laws.law import Law
from moe_jax.laws.rows import Rows
from moe_jax.text import count, short

COUNTS = {
    "n_total_nonemb": "all parameters, without embeddings, router, norms and biases",
    "n_active_nonemb": "the parameters that a token meets, without embeddings, router, norms and biases",
    "n_total": "all parameters, embeddings too",
    "n_active": "the parameters that a token meets, embeddings too",
    "tokens": "tokens trained on; a branch of a trunk counts its whole path, a repeated token counts again",
    "granularity": "width of the dense feed-forward ÷ width of an expert",
    "expansion_rate": "parameters of a layer's experts ÷ parameters of the dense feed-forward",
    "sparsity": "1 − active expert width ÷ all of it",
    "train_flops": "FLOPs of everything that the step has to do",
    "flops_krajewski2024": "FLOPs by Krajewski et al. 2024, appendix E",
    "flops_abnar2025": "FLOPs by Abnar et al. 2025, appendix C",
    "flops_6nd": "6 · active parameters · tokens",
}  # fmt: skip
# Columns of a table that say how runs were trained.
HYPERPARAMETERS = (
    "learning_rate", "batch_tokens", "optimizer", "schedule", "weight_decay", "warmup_tokens", "sequence_length",
    "vocab_size", "seed",
)  # fmt: skip


def filled(law: Law, rows: Rows) -> Law:
    """The law with its checklist; rows: all runs that took part, fitted or held out."""
    return replace(law, checklist=checklist(law, rows))


def checklist(law: Law, rows: Rows) -> dict[str, str]:
    """Item -> sentence, in the order in which a page shows them."""
    form = law.form
    return {
        "form": f"{law.name} ({form.source}): {'L' if form.quantity == LOSS else form.quantity} = {form.formula}",
        **{symbol: _counted(law.data.columns.get(symbol, column)) for symbol, column in form.columns.items()},
        "C": "the law has no formula of FLOPs" if form.cost is None else f"{form.cost}: {COUNTS.get(form.cost, 'own')}",
        "loss": f"{law.data.loss}, nats per token",
        "runs": _runs(law, rows),
        "hyper-parameters": _hyperparameters(rows.table, _tuned(law)),
        "checkpoints": _checkpoints(rows.table),
        "objective": _objective(law),
        "starts": f"{law.method.starts_at_best} of {law.method.starts} starts reached the best optimum",
        "fixed": ", ".join(f"{k} = {v:g}" for k, v in law.fixed_coefficients.items()) or "no coefficient",
        "held out": _held_out(law),
        "intervals": _intervals(law),
    }


def _counted(column: str) -> str:
    return f"{column}: {COUNTS[column]}" if column in COUNTS else f"{column}, a column or expression of the table"


def _runs(law: Law, rows: Rows) -> str:
    spans = []
    for symbol, column in law.data.columns.items():
        if column in law.data.range:
            low, high = law.data.range[column]
            spans.append(f"{symbol} {short(low)} to {short(high)}")
    asked = law.data.selection
    left_out = [f"{k} {asked[k]!r}" for k in ("where", "best_of", "drop") if asked.get(k)]
    fitted = count(law.data.n_fit, "run") if law.form.quantity == LOSS else f"best of {count(law.data.n_fit, 'cell')}"
    return "; ".join([f"{fitted} fitted", ", ".join(spans), *left_out])


def _tuned(law: Law) -> object:
    """The column of which each cell has its best value; "" or None where none is chosen."""
    return law.data.selection.get("best_of") if law.form.quantity == LOSS else law.form.quantity


def _hyperparameters(table: pd.DataFrame, best: object) -> str:
    """Which were tuned or varied, which were constant, and which the table does not tell."""
    varied, constant, unknown = [], [], []
    for column in HYPERPARAMETERS:
        values = table[column].dropna() if column in table else pd.Series(dtype=float)
        if values.empty:
            unknown.append(column)
        elif values.nunique() == 1:
            constant.append(f"{column} {_value(values.iloc[0])}")
        elif pd.api.types.is_numeric_dtype(values) and not pd.api.types.is_bool_dtype(values):
            ends = f"{_value(values.min())} to {_value(values.max())}"
            varied.append(f"{column} ({count(values.nunique(), 'value')}, {ends})")
        else:
            varied.append(f"{column} ({', '.join(sorted(map(str, values.unique()))[:4])})")
    parts = {
        "tuned": [f"the best {best} of each cell"] if best else [],
        "vary": varied,
        "constant": constant,
        "not in the table": unknown,
    }
    return "; ".join(f"{what}: {', '.join(items)}" for what, items in parts.items() if items)


def _value(value: object) -> str:
    return f"{value:g}" if isinstance(value, int | float | np.number) else str(value)


def _checkpoints(table: pd.DataFrame) -> str:
    if "trunk" in table and (branches := int(table["trunk"].notna().sum())):
        return f"the last of each run; {branches} of {len(table)} runs branch off a trunk that they share"
    if "own_tokens" in table:
        return "the last of each run, whose schedule ends there"
    return "the table does not tell; each row is taken for the last checkpoint of a run"


def _objective(law: Law) -> str:
    objective, of = law.method.objective, law.form.quantity
    huber, space = objective.get("huber"), f"ln {of}" if objective.get("space") == "log" else of
    kind = f"Huber (δ = {huber:g})" if isinstance(huber, float | int) and np.isfinite(huber) else "least squares"
    penalties = [f"{k} {objective[k]:g}" for k in ("l1", "l2") if objective.get(k)]
    ends = f", penalties {' and '.join(penalties)}" if penalties else ", no penalty"
    if law.data.weights:
        ends += f", rows weighted by {law.data.weights}"
    if objective.get("weight_exponent"):
        ends += f", rows weighted by (ln loss)^−{objective['weight_exponent']:g}"
    if objective.get("one_sided", 1) != 1:
        ends += f", rows that the law lies below by {objective['one_sided']:g}"
    return f"{kind} of residuals of {space}{ends}, by Levenberg–Marquardt"


def _held_out(law: Law) -> str:
    if not law.data.n_holdout:
        return "no run: the law is not tested outside the runs that it was fitted to"
    error = law.errors.get("rmse_holdout")
    unit = "nats" if law.form.quantity == LOSS else f"of ln {law.form.quantity}"
    said = f" (RMSE {error:.4f} {unit}, {law.errors['rmse_fit']:.4f} on those fitted)" if error is not None else ""
    return f"{count(law.data.n_holdout, 'run')}, by {law.data.selection.get('holdout', '')!r}{said}"


def _intervals(law: Law) -> str:
    samples = len(next(iter(law.samples.values()), ()))
    if not samples:
        return "none"
    cluster = law.method.objective["bootstrap"]["cluster"]
    together = f", rows of one {cluster} together" if cluster else ""
    return f"the central {law.level:.0%} of {samples} bootstrap samples ({law.method.interval_method}{together})"
