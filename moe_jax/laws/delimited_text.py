"""Tables of delimited text: CSV, TSV, and the tables separated by `;` that spreadsheets write where a comma is decimal.

The separator is the one of tab, `;` and `,` that the header has most often outside quotes (in a tie the first of them).
In a table separated by `;` a comma in a number is a decimal comma, and no number has a decimal point."""

import csv
import io
import re
from collections.abc import Iterator

import pandas as pd

from moe_jax import errors
from moe_jax.laws import table_checks
from moe_jax.text import count, one_line

_SEPARATORS = "\t;,"
_WORDS = {"\t": "tab", ";": "semicolon", ",": "comma"}
_QUOTED = re.compile(r'"(?:[^"]|"")*"')
_NUMBER = re.compile(r"\s*[+-]?\d+([.,])\d+(?:e[+-]?\d+)?\s*", re.IGNORECASE | re.ASCII)


def parse(path: object, text: str) -> pd.DataFrame:
    """The table in a text, whose first row names the columns. path: for sentences.

    Raises UserError for rows with another number of fields than the header, two columns of one name, decimal commas
    beside decimal points, and what is no table at all."""
    head = next((line for line in text.splitlines() if line.strip()), "")
    if not head:
        raise errors.UserError(f"{path} is not a readable CSV: it is empty")
    bare = _QUOTED.sub("", head)
    separator = max(_SEPARATORS, key=bare.count) if any(s in bare for s in _SEPARATORS) else ","
    _check_widths(path, text, separator)
    decimal = _decimal_mark(path, text, separator) if separator == ";" else "."
    try:
        return pd.read_csv(
            io.StringIO(text),
            sep=separator,
            decimal=decimal,
            skipinitialspace=True,
            index_col=False,
            low_memory=False,  # else a column's type may change half-way
        )
    except (pd.errors.ParserError, pd.errors.EmptyDataError, ValueError) as e:
        raise errors.UserError(f"{path} is not a readable CSV: {one_line(str(e)).strip()}") from e


def _rows(path: object, text: str, separator: str) -> Iterator[tuple[int, list[str]]]:
    """(line, fields) of each row that is not blank."""
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator, skipinitialspace=True)
    try:
        yield from ((rows.line_num, row) for row in rows if "".join(row))
    except csv.Error as e:
        raise errors.UserError(f"{path} is not a readable CSV: {e}") from e


def _check_widths(path: object, text: str, separator: str) -> None:
    """Raises UserError for a row with another number of fields than the header, and for two columns of one name.

    pandas takes a surplus field for an index, and shifts all columns by one."""
    rows = _rows(path, text, separator)
    _, header = next(rows, (0, []))
    table_checks.one_of_each_name(path, header)
    widths = [(line, len(row)) for line, row in rows]
    wrong = [(line, n) for line, n in widths if n != len(header)]
    if not wrong:
        return
    line, n = wrong[0]
    same = len(widths) > 1 and all(w == n for _, w in widths)
    where = "rows have" if same else f"line {line} has"
    raise errors.UserError(
        f"{path}: {where} {count(n, 'field')}, the header {len(header)}; a row has a field for each column, and no"
        f" {_WORDS[separator]} at its end"
    )


def _decimal_mark(path: object, text: str, separator: str) -> str:
    """ "," where numbers of the table have decimal commas. Raises UserError where others have decimal points."""
    first: dict[str, str] = {}
    for line, row in _rows(path, text, separator):
        for cell in row:
            if (found := _NUMBER.fullmatch(cell)) and found[1] not in first:
                first[found[1]] = f"{cell.strip()} in line {line}"
    if len(first) == 2:
        raise errors.UserError(
            f"{path} has numbers with a decimal comma ({first[',']}) and with a decimal point ({first['.']}): in a"
            " table separated by semicolons a comma is decimal; write all numbers in one way"
        )
    return "," if "," in first else "."
