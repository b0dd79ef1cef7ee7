"""What the symbols of a law count: N with embeddings or without, of all experts or of the active ones.

A law fitted with `--columns N=n_active_nonemb` is asked with n_active_nonemb, whatever its form's own column is."""

from collections.abc import Mapping, Sequence

from moe_jax import errors

# Columns of results.csv that count the same thing in different ways: which one a law means must be known.
KINDS = (("n_total_nonemb", "n_active_nonemb", "n_total", "n_active"), ("expansion_rate", "n_experts"))
# The other columns that a model and its training have without a run.
_OTHERS = ("tokens", "granularity", "sparsity", "active_rate", "top_k", "d_model", "n_layers", "n_router")
COLUMNS = (*(column for kind in KINDS for column in kind), *_OTHERS)


def standard(source: str) -> str | None:
    """The column of results.csv that a source of a fit names, in any case of letters; None for another name."""
    return source.lower() if source.lower() in COLUMNS else None


def columns_meant(law, said: Mapping[str, str] | None = None) -> dict[str, str]:
    """Symbol of a law -> the column of results.csv that it counts.

    said: what the user states of a symbol. Raises UserError where the fit read N or E from a column whose name does not
    tell what it counts, and for a statement about a symbol or a column that is not there."""
    said = dict(said or {})
    if unknown := sorted(said.keys() - law.form.columns.keys()):
        raise errors.UserError(f"{law.name} has no {unknown[0]}; it has {', '.join(law.form.symbols)}")
    return {symbol: _meant(law, symbol, said.get(symbol)) for symbol in law.form.columns}


def _meant(law, symbol: str, said: str | None) -> str:
    column = law.form.columns[symbol]
    choices = _kind(column)
    source = law.data.columns.get(symbol, column)
    stated = standard(source)
    if said is not None:
        if said not in (choices or (column,)):
            raise errors.UserError(f"{symbol} of {law.name} cannot count {said!r}, only {_or(choices or (column,))}")
        if stated is not None and stated != said:
            raise errors.UserError(f"{symbol} of this {law.name} was fitted as {stated}, not {said}")
        return said
    if stated is not None:
        return stated
    if choices:
        raise errors.UserError(
            f"{symbol} of this {law.name} was read from {source!r}, which does not say what it counts: {_or(choices)};"
            f" say it (--counts={symbol}={column}), or fit with --columns={column}={source}"
        )
    return column


def _kind(column: str) -> Sequence[str]:
    return next((kind for kind in KINDS if column in kind), ())


def _or(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} or {names[-1]}"
