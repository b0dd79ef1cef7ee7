"""The expressions of `--columns` and `--where`: arithmetic and conditions on columns, never run as Python.

They are parsed against a whitelist of syntax.

For example "n_total=`Model Size`, tokens=`Training FLOP` / (6 * `Model Size`)", and
"in_paper_table3 == 1 and router_type in ('S-Base', 'Dense')".
"""

import ast
import operator
import re
from collections.abc import Callable

import numpy as np
import pandas as pd

from moe_jax import errors
from moe_jax.laws import number_texts, table_checks

_ARITHMETIC = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
    ast.Pow: operator.pow,
}
_COMPARISONS = {
    ast.Eq: operator.eq,
    ast.NotEq: operator.ne,
    ast.Lt: operator.lt,
    ast.LtE: operator.le,
    ast.Gt: operator.gt,
    ast.GtE: operator.ge,
}
_QUOTED = re.compile(r"`([^`]*)`")
_DEEPEST = 100  # levels of nesting; column arithmetic needs fewer


def assignments(text: str) -> dict[str, str]:
    """The assignments of --columns: "a=x/2, b=`Model Size`" -> {"a": "x/2", "b": "`Model Size`"}.

    Commas inside back-quotes do not separate. Raises UserError for a part that is not NAME=EXPRESSION."""
    out = {}
    for part in re.split(r",(?=(?:[^`]*`[^`]*`)*[^`]*$)", text):
        name, equals, expression = part.partition("=")
        if not equals or not re.fullmatch(r"\w+", name.strip()) or not expression.strip():
            raise errors.UserError(f"--columns has {part.strip()!r}, must be NAME=EXPRESSION, …")
        out[name.strip()] = expression.strip()
    return out


def column(table: pd.DataFrame, text: str) -> pd.Series:
    """The value of an arithmetic expression (+ − * / **, numbers, columns) in every row. Raises UserError otherwise."""
    tree, names = _parse(text, "--columns")
    if isinstance(tree, ast.Name):
        return _look_up(table, names, tree, "--columns")
    with np.errstate(all="ignore"):  # infinite and undefined results are refused where the rows are read
        value = _number(tree, table, names, text)
    return pd.Series(np.broadcast_to(value, len(table)), index=table.index)


def mask(table: pd.DataFrame, text: str) -> np.ndarray:
    """(rows,) True where a row meets a condition: comparisons of columns, numbers and texts, `in (…)`, and, or, not.

    Raises UserError for anything else."""
    tree, names = _parse(text, "--where")
    try:
        return np.broadcast_to(np.asarray(_condition(tree, table, names, text), bool), len(table))
    except TypeError as e:
        raise errors.UserError(f"--where {text!r} compares texts with numbers") from e


def _parse(text: str, flag: str) -> tuple[ast.expr, dict[str, str]]:
    """The syntax tree, and the back-quoted names by their placeholders in it."""
    names: dict[str, str] = {}

    def placeholder(match: re.Match) -> str:
        name = f"_quoted_{len(names)}"
        names[name] = match.group(1)
        return name

    try:
        tree = ast.parse(_QUOTED.sub(placeholder, text).strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError) as e:
        raise errors.UserError(f"{flag} cannot be read: {text[:200]!r}") from e
    level, depth = [tree], 0
    while level:
        level, depth = [child for node in level for child in ast.iter_child_nodes(node)], depth + 1
    if depth > _DEEPEST:
        raise errors.UserError(f"{flag} is nested too deeply: {text[:200]!r}")
    return tree, names


def _number(node: ast.expr, table: pd.DataFrame, names: dict, text: str):
    match node:
        case ast.Constant(value=bool()):
            pass
        case ast.Constant(value=int() | float() as value):
            return np.float64(value)
        case ast.Name():
            return number_texts.of_column(_look_up(table, names, node, "--columns"))
        case ast.UnaryOp(op=ast.USub(), operand=inner):
            return -_number(inner, table, names, text)
        case ast.BinOp(left=left, op=op, right=right) if type(op) in _ARITHMETIC:
            return _ARITHMETIC[type(op)](_number(left, table, names, text), _number(right, table, names, text))
    raise errors.UserError(f"--columns {text!r}: only + - * / **, numbers, names and `quoted names` are allowed")


def _condition(node: ast.expr, table: pd.DataFrame, names: dict, text: str):
    match node:
        case ast.BoolOp(op=op, values=parts):
            join: Callable = np.logical_and if isinstance(op, ast.And) else np.logical_or
            return join.reduce([_condition(p, table, names, text) for p in parts])
        case ast.UnaryOp(op=ast.Not(), operand=inner):
            return ~np.asarray(_condition(inner, table, names, text), bool)
        case ast.Compare(left=left, ops=ops, comparators=comparators):
            values = [_value(n, table, names, text) for n in (left, *comparators)]
            parts = [_compare(op, a, b, text) for op, a, b in zip(ops, values, values[1:], strict=False)]
            return np.logical_and.reduce(parts)
    raise _not_a_condition(text)


def _compare(op: ast.cmpop, a, b, text: str):
    if isinstance(op, ast.In | ast.NotIn):
        if not isinstance(a, pd.Series) or not isinstance(b, list):
            raise errors.UserError(f"--where {text!r}: `in` needs a column before it and (a, list) after it")
        return _beside(a, b).isin(b).to_numpy() ^ isinstance(op, ast.NotIn)
    if isinstance(a, list) or isinstance(b, list) or type(op) not in _COMPARISONS:
        raise _not_a_condition(text)
    return np.asarray(_COMPARISONS[type(op)](_beside(a, b), _beside(b, a)), bool)


def _beside(value, other):
    """A column of texts that are numbers as numbers, where it is compared with numbers; other values as they are."""
    others = other if isinstance(other, list) else [other]
    numeric = all(
        pd.api.types.is_numeric_dtype(o.dtype) if isinstance(o, pd.Series) else isinstance(o, int | float)
        for o in others
    )
    if not numeric or not isinstance(value, pd.Series) or pd.api.types.is_numeric_dtype(value.dtype):
        return value
    numbers = number_texts.of_column(value)
    return value if np.isnan(numbers).all() else pd.Series(numbers, index=value.index)


def _value(node: ast.expr, table: pd.DataFrame, names: dict, text: str):
    match node:
        case ast.Constant(value=str() | int() | float() as value):
            return value
        case ast.UnaryOp(op=ast.USub(), operand=ast.Constant(value=int() | float() as value)):
            return -value
        case ast.Name():
            return _look_up(table, names, node, "--where")
        case ast.Tuple(elts=parts) | ast.List(elts=parts):
            return [_value(p, table, names, text) for p in parts]
    raise _not_a_condition(text)


def _look_up(table: pd.DataFrame, names: dict, node: ast.Name, flag: str) -> pd.Series:
    name = names.get(node.id, node.id)
    if name not in table.columns:
        raise errors.UserError(f"{flag}: there is no column {name!r}; the columns are {table_checks.listed(table)}")
    return table[name]


def _not_a_condition(text: str) -> errors.UserError:
    return errors.UserError(
        f"--where {text!r}: only comparisons of columns, numbers and 'texts', `in (…)`, and, or, not are allowed"
    )
