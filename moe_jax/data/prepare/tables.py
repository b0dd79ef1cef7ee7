"""Tables -> documents: the cells of one column of CSV and TSV, Parquet and Arrow files, row by row in bounded memory.

Arrow tables are what Hugging Face's `datasets` writes (streams, `.arrow`) and publishes (`.parquet`). pyarrow is
imported for them alone.
"""

import csv
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from etils import epath

from moe_jax import files
from moe_jax.data.prepare import streams
from moe_jax.data.prepare.documents import MAX_LINE, usable_texts
from moe_jax.data.prepare.kinds import Format, Kind
from moe_jax.errors import UserError
from moe_jax.text import one_line

_BATCH_ROWS = 256  # of a Parquet file that are held at once
_STREAM_END = b"\xff\xff\xff\xff\0\0\0\0"
_NAMES, _NAME_CHARACTERS = 20, 40  # of columns, in a sentence


def check_column(path: epath.Path, kind: Kind, field: str) -> None:
    """Raises UserError if the table cannot be read or has no column `field` of texts; reads its beginning only."""
    if kind.format in (Format.CSV, Format.TSV):
        with streams.open_lines(path, 0, kind.encoding) as lines:
            _Delimited(lines, kind.format, field)
    else:
        with _arrow_column(path, kind.format, field):
            pass


def table_documents(path: epath.Path, kind: Kind, skip: Callable[[str], None], field: str) -> Iterator[tuple[int, str]]:
    """(number, text) of each row whose cell in the column `field` is a text.

    Calls skip(reason) for each row that it leaves out. Raises UserError if the file cannot be read."""
    if kind.format in (Format.CSV, Format.TSV):
        with streams.open_lines(path, 0, kind.encoding) as lines:
            yield from usable_texts(_Delimited(lines, kind.format, field).cells(skip), skip, field)
    else:
        with _arrow_column(path, kind.format, field) as cells:
            yield from usable_texts(cells, skip, field)


def _index(path: epath.Path, names: Sequence[str], field: str) -> int:
    """The place of the column `field`. Raises UserError if it is not there, or there twice."""
    if names.count(field) == 1:
        return names.index(field)
    short = [n if len(n) <= _NAME_CHARACTERS else n[:_NAME_CHARACTERS] + "…" for n in names[:_NAMES]]
    listed = one_line(", ".join(short))
    listed += f" and {len(names) - _NAMES} more" if len(names) > _NAMES else ""
    has = f"{names.count(field)} columns" if field in names else "no column"
    raise UserError(
        f"{path} has {has} named {field}; its columns are {listed}; name the one that holds the text with "
        "--text_field, or leave the file out"
    )


class _Delimited:
    """The rows of a CSV or TSV file, whose first one names the columns."""

    def __init__(self, lines: streams.Lines, form: Format, field: str):
        csv.field_size_limit(MAX_LINE)
        self._path = lines.path
        self._rows = csv.reader(self._decoded(lines), delimiter="\t" if form is Format.TSV else ",", strict=True)
        header = self._next()
        if header is None:
            raise UserError(f"{self._path} is empty, where a {form} file has a line that names its columns")
        self._n, self._column = len(header), _index(self._path, header, field)

    def cells(self, skip: Callable[[str], None]) -> Iterator[str]:
        """The column's cells; a row of another length is skipped, as it may have lost text to a bare delimiter."""
        while (row := self._next()) is not None:
            if len(row) == self._n:
                yield row[self._column]
            else:
                skip("row with another number of fields than the header")

    def _next(self) -> list[str] | None:
        """The next row that is not blank; None at the end."""
        try:
            return next((row for row in self._rows if row), None)
        except csv.Error as e:
            raise UserError(
                f"{self._path} is damaged at line {self._rows.line_num}: {e}; quote fields as Excel and pandas do, or "
                "write one JSON record a line (.jsonl)"
            ) from e

    def _decoded(self, lines: streams.Lines) -> Iterator[str]:
        """Lines of text, in which bytes that are not UTF-8 are halves of surrogate pairs; they cost their row alone."""
        encoding = "utf-8-sig"
        while line := lines.read(MAX_LINE + 1):
            if len(line) > MAX_LINE:
                raise UserError(f"{self._path} has a line above 64 MiB; is it a table?")
            yield line.decode(encoding, "surrogateescape")
            encoding = "utf-8"


@contextmanager
def _arrow_column(path: epath.Path, form: Format, field: str) -> Iterator[Iterator[str | None]]:
    """The cells of the column, read as they are asked for."""
    try:
        import pyarrow as pa
    except ImportError as e:
        raise UserError(f"reading {form} files needs pyarrow: pip install pyarrow") from e
    name = os.fspath(path)
    with _damage_in_one_sentence(path):
        if files.is_remote(name):
            file = pa.PythonFile(path.open("rb"), "r")
        elif form is Format.PARQUET:
            file = pa.OSFile(name)
        else:  # one record batch may be the whole file; pages of a map are given back when memory is short
            file = pa.memory_map(name)
    with file:
        with _damage_in_one_sentence(path):
            schema, batches = _opened(file, form, field, path)
        _check_texts(path, field, schema.field(field).type)
        yield _cells(path, batches, field)


def _opened(file: Any, form: Format, field: str, path: epath.Path) -> tuple[Any, Iterator[Any]]:
    """The schema, and the record batches of the column `field`. Raises UserError if there is none, pyarrow's errors."""
    import pyarrow as pa
    from pyarrow import ipc, parquet

    if form is Format.PARQUET:
        table = parquet.ParquetFile(file, buffer_size=2**20, pre_buffer=False)
        _index(path, table.schema_arrow.names, field)
        return table.schema_arrow, table.iter_batches(_BATCH_ROWS, columns=[field], use_threads=False)
    open_any = ipc.open_file if form is Format.ARROW_FILE else ipc.open_stream
    schema = open_any(file).schema
    file.seek(0)
    options = ipc.IpcReadOptions(included_fields=[_index(path, schema.names, field)], use_threads=False)
    reader = open_any(file, options=options)
    if form is Format.ARROW_FILE:
        return schema, (reader.get_batch(i) for i in range(reader.num_record_batches))
    return schema, _whole_stream(pa, file, reader)


def _whole_stream(pa: Any, file: Any, reader: Any) -> Iterator[Any]:
    """The stream's record batches. pyarrow takes a stream that was cut between two of them for a whole one."""
    yield from reader
    end = file.tell()
    file.seek(end - len(_STREAM_END))
    if file.read(len(_STREAM_END)) != _STREAM_END:
        raise pa.ArrowInvalid("it ends without the mark of an Arrow stream's end")
    if end != file.size():
        raise pa.ArrowInvalid("it goes on after the end of its Arrow stream")


def _check_texts(path: epath.Path, field: str, column_type: Any) -> None:
    from pyarrow import types

    held = column_type.value_type if types.is_dictionary(column_type) else column_type
    if not any(test(held) for test in (types.is_string, types.is_large_string, types.is_string_view, types.is_null)):
        raise UserError(f"{path}: its column {field} holds {column_type}, not text; name another with --text_field")


def _cells(path: epath.Path, batches: Iterator[Any], field: str) -> Iterator[str | None]:
    while True:
        with _damage_in_one_sentence(path):
            batch = next(batches, None)
            if batch is None:
                return
            column = batch.column(field)
            column.validate(full=True)  # wrong offsets would read outside of the file
        for cell in column:
            yield cell.as_py()


@contextmanager
def _damage_in_one_sentence(path: epath.Path) -> Iterator[None]:
    import pyarrow as pa

    try:
        yield
    except (pa.ArrowException, OSError, UnicodeDecodeError) as e:  # the last of names of columns
        if isinstance(e, OSError) and e.errno:
            raise UserError(f"{path} cannot be read: {e.strerror or e}") from e
        raise UserError(f"{path} is damaged: {one_line(str(e)).strip()}") from e
