"""Reads a table of runs from a file: CSV, TSV, `;`-separated, JSON lines or Parquet, plain or in gzip or Zstandard.

The content decides what a file is, the ending only what is promised. Nothing in a file is run: there are no pickles."""

import gzip
import hashlib
import io
import json
import zlib
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import pandas as pd
from etils import epath

from moe_jax import errors, files
from moe_jax.laws import delimited_text, table_checks
from moe_jax.text import one_line

_BYTES = 2**30  # of an unpacked table
_CELLS = 2**27
_BOMB_RATIO, _BOMB_FLOOR = 250, 2**26  # a packed file may grow by this factor, and any to this many bytes
_GZIP, _ZSTANDARD, _PARQUET = b"\x1f\x8b", b"\x28\xb5\x2f\xfd", b"PAR1"
_PROMISES = {".gz": (_GZIP, "gzip"), ".zst": (_ZSTANDARD, "Zstandard"), ".parquet": (_PARQUET, "Parquet")}
_MARKS = {b"\xff\xfe": "utf-16", b"\xfe\xff": "utf-16", b"\xef\xbb\xbf": "utf-8-sig"}
_OTHERS = {
    b"PK\x03\x04": "a zip archive, as .xlsx and .npz are",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"BZh": "compressed with bzip2",
    b"\xfd7zXZ": "compressed with xz",
    b"ARROW1": "an Arrow file",
    b"\x89HDF": "an HDF5 file",
    b"SQLite format 3": "an SQLite database",
    b"%PDF-": "a PDF",
    **{b"\x80" + bytes([protocol]): "a Python pickle, which is never read" for protocol in range(2, 6)},
}


def read(path) -> tuple[pd.DataFrame, str]:
    """The table in a file, and the SHA-256 of the file's bytes.

    Raises UserError where the file is missing, damaged, too large or no table, where a row has another number of fields
    than the header, and where two columns have one name."""
    path = epath.Path(path)
    try:
        content = files.read_file(path)
    except (FileNotFoundError, NotADirectoryError) as e:
        raise errors.UserError(
            f"there is no results file {path}; `moe-jax collect` writes one, --results names another"
        ) from e
    plain = _unpacked(path, content)
    if plain.startswith(_PARQUET):
        table = _parquet(path, plain)
    else:
        text = _decoded(path, plain)
        table = _json(path, text) if text.lstrip()[:1] in ("{", "[") else delimited_text.parse(path, text)
    table.columns = table_checks.one_of_each_name(path, table.columns)
    return table, hashlib.sha256(content).hexdigest()


def _unpacked(path: epath.Path, content: bytes) -> bytes:
    """The content of a packed file, other content as it is. Raises UserError for a torn file and for a bomb."""
    name, plain = path.name.lower(), content
    if content[:4] == _ZSTANDARD or content[:2] == _GZIP:
        most = min(_BYTES, _BOMB_FLOOR + _BOMB_RATIO * len(content))
        unpack = _unpack_gzip if content[:2] == _GZIP else _unpack_zstandard
        try:
            plain = unpack(content, most)
        except (gzip.BadGzipFile, zlib.error, EOFError) as e:
            raise errors.UserError(f"{path} is damaged: {one_line(str(e))}") from e
        if len(plain) > most:
            raise errors.UserError(f"{path} unpacks to more than {most / 2**20:,.0f} MiB: that is no table of runs")
        name = name.removesuffix(".gz").removesuffix(".zst")
    for ending, (magic, kind) in _PROMISES.items():
        if name.endswith(ending) and not plain.startswith(magic):
            raise errors.UserError(f"{path} is damaged, or not what its name says: it does not begin as {kind} does")
    if len(plain) > _BYTES:
        raise errors.UserError(f"{path} has more than {_BYTES / 2**20:,.0f} MiB: that is no table of runs")
    return plain


def _unpack_gzip(content: bytes, most: int) -> bytes:
    with gzip.GzipFile(fileobj=io.BytesIO(content)) as file:
        return file.read(most + 1)


def _unpack_zstandard(content: bytes, most: int) -> bytes:
    """Frame by frame, 1 kB at a time: the library's reader takes a cut file for a whole one."""
    import zstandard

    frame, out, source = None, bytearray(), io.BytesIO(content)
    try:
        while (fed := source.read(2**10)) and len(out) <= most:
            while fed:
                frame = frame or zstandard.ZstdDecompressor().decompressobj()
                out += frame.decompress(fed)
                fed, frame = (frame.unused_data, None) if frame.eof else (b"", frame)
    except zstandard.ZstdError as e:
        raise EOFError(str(e)) from e
    if frame is not None and len(out) <= most:
        raise EOFError("the compressed file ends before its end marker")
    return bytes(out)


def _decoded(path: epath.Path, plain: bytes) -> str:
    """The text of a file in UTF-8, or in UTF-16 with a byte order mark. Raises UserError for anything else."""
    for magic, kind in _OTHERS.items():
        if plain.startswith(magic):
            raise errors.UserError(
                f"{path} is {kind}; a table is CSV, TSV, JSON lines or Parquet, also in gzip (.gz) or Zstandard (.zst)"
            )
    encoding = next((name for mark, name in _MARKS.items() if plain.startswith(mark)), "utf-8")
    try:
        text = plain.decode(encoding)
    except UnicodeDecodeError as e:
        line = plain[: e.start].count(b"\n") + 1
        raise errors.UserError(
            f"{path} is not a readable CSV: line {line} has bytes that are not {encoding.removesuffix('-sig').upper()}"
            f" ({plain[e.start : e.start + 4].hex(' ')}); save it as UTF-8"
        ) from e
    if "\0" in text:
        raise errors.UserError(f"{path} is not a readable CSV: it has NUL bytes, so it is damaged or binary")
    return text


def _parquet(path: epath.Path, plain: bytes) -> pd.DataFrame:
    import pyarrow as pa
    from pyarrow import parquet

    try:
        file = parquet.ParquetFile(pa.BufferReader(plain))
        _refuse_cells(path, file.metadata.num_rows, file.metadata.num_columns)
        batches, size = [], 0
        for batch in file.iter_batches(256, use_threads=False):
            batch.validate(full=True)  # wrong offsets would read outside of the file
            batches.append(batch)
            if (size := size + batch.nbytes) > _BYTES:
                raise errors.UserError(
                    f"{path} unpacks to more than {_BYTES / 2**20:,.0f} MiB: that is no table of runs"
                )
        table_checks.one_of_each_name(path, file.schema_arrow.names)
        table = pa.Table.from_batches(batches, file.schema_arrow)
        return flat(pd.DataFrame({name: _column(table.column(name)) for name in table.column_names}))
    except (pa.ArrowException, OSError, ValueError, OverflowError) as e:  # ValueError: names that are not UTF-8
        raise errors.UserError(f"{path} is damaged: {one_line(str(e)).strip()}") from e


def _column(values: Any) -> pd.Series:
    """A pyarrow column with pandas' plain types: a dictionary's values stand for its codes, decimals are floats, and
    dates are texts."""
    import pyarrow as pa

    if pa.types.is_dictionary(values.type):
        values = values.cast(values.type.value_type)
    if pa.types.is_decimal(values.type):
        values = values.cast(pa.float64())
    if pa.types.is_date(values.type):
        values = values.cast(pa.string())
    return values.to_pandas(integer_object_nulls=True)


def _json(path: epath.Path, text: str) -> pd.DataFrame:
    """JSON lines, an object a run, or one array of objects. A key that a row lacks is an empty cell."""

    def pairs(found: list[tuple[str, Any]]) -> dict[str, Any]:
        table_checks.one_of_each_name(path, [name for name, _ in found])
        return dict(found)

    try:
        records = list(_json_records(path, text, lambda part: json.loads(part, object_pairs_hook=pairs)))
    except RecursionError as e:
        raise errors.UserError(f"{path} is not readable JSON: it is nested too deeply") from e
    columns = list(dict.fromkeys(name for record in records for name in record))
    if not columns:
        raise errors.UserError(f'{path} is JSON without a run: a row is an object such as {{"tokens": 4e9}}')
    _refuse_cells(path, len(records), len(columns))
    return flat(pd.DataFrame.from_records(records, columns=columns))


def _json_records(path: epath.Path, text: str, parse: Callable[[str], Any]) -> Iterator[dict[str, Any]]:
    whole = text.lstrip().startswith("[")
    parts = [(0, text)] if whole else enumerate(text.split("\n"), 1)
    for line, part in parts:
        if not part.strip():
            continue
        try:
            found = parse(part)
        except ValueError as e:
            where = "" if whole else f"line {line}: "
            raise errors.UserError(f"{path} is not readable JSON: {where}{one_line(str(e))}") from e
        for record in found if whole else [found]:
            if not isinstance(record, dict):
                where = "an element of its array" if whole else f"line {line}"
                raise errors.UserError(f"{path}: {where} is no JSON object; a row is one, with a key for each column")
            yield record


def _refuse_cells(path: epath.Path, rows: int, columns: int) -> None:
    if rows * columns > _CELLS:
        raise errors.UserError(f"{path} has {rows:,} rows of {columns:,} columns: at most {_CELLS:,} cells can be read")


def flat(table: pd.DataFrame) -> pd.DataFrame:
    """The table with the lists, sets, objects and arrays in its cells as texts, which can be compared."""
    nested = {}
    for name in table.columns:
        if table[name].dtype == object and any(map(_is_nested, table[name])):
            nested[name] = [str(cell) if _is_nested(cell) else cell for cell in table[name]]
    return table.assign(**nested) if nested else table


def _is_nested(cell: Any) -> bool:
    return isinstance(cell, list | dict | set | np.ndarray)
