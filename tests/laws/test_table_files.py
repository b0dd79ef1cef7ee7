"""Tables in every kind of file give the same numbers, and files that are no table give one sentence."""

import datetime
import decimal
import gzip
import json

import numpy as np
import pandas as pd
import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from moe_jax.errors import UserError
from moe_jax.laws import number_texts, rows, table_files

WRITERS = {
    "csv": lambda t: t.to_csv(index=False).encode(),
    "tsv": lambda t: t.to_csv(index=False, sep="\t").encode(),
    "semicolons.csv": lambda t: t.to_csv(index=False, sep=";", decimal=",").encode(),
    "utf16.txt": lambda t: t.to_csv(index=False, sep="\t").encode("utf-16"),
    "jsonl": lambda t: "\n".join(map(json.dumps, t.to_dict("records"))).encode(),
    "json": lambda t: json.dumps(t.to_dict("records")).encode(),
    "parquet": lambda t: t.to_parquet(index=False),
}
PACKERS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.compress}
NUMBERS = st.floats(allow_nan=False, allow_infinity=False) | st.integers(-(2**53), 2**53).map(float)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    numbers=st.lists(st.tuples(NUMBERS, NUMBERS), min_size=1, max_size=6),
    kind=st.sampled_from([*WRITERS]),
    packed=st.sampled_from([*PACKERS]),
    named=st.booleans(),
)
def test_a_table_gives_the_same_numbers_from_each_kind_of_file(tmp_path, numbers, kind, packed, named):
    """The content decides: the ending may be missing."""
    table = pd.DataFrame(numbers, columns=["Model Size", "loss"]).assign(
        router=[f"é, {i}" for i in range(len(numbers))]
    )
    path = tmp_path / (f"runs.{kind}{packed}" if named else "runs")
    path.write_bytes(PACKERS[packed](WRITERS[kind](table)))
    read, _ = table_files.read(path)
    assert list(read.columns) == list(table.columns) and list(read["router"]) == list(table["router"])
    for column in ("Model Size", "loss"):
        np.testing.assert_array_equal(number_texts.of_column(read[column]), table[column])


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("N,D,loss\n1,2,3,\n4,5,6,\n", "rows have 4 fields, the header 3; .* no comma at its end"),
        ("N,D,loss\n1,2,3\n4,5,6,\n", "line 3 has 4 fields, the header 3"),
        ("N;D;loss\n1;2;3;\n4;5;6;\n", "rows have 4 fields, the header 3; .* no semicolon at its end"),
        ("N,D, N\n1,2,3\n", "has 2 columns named 'N'"),
        ("N;loss\n1,5;2.5\n", r"a decimal comma \(1,5 in line 2\) and with a decimal point \(2.5 in line 2\)"),
        ("", "is empty"),
        ('N,D\n"1,2\n', "line 2|EOF"),
        ("N,D\n1,é\n".encode("latin-1"), r"line 2 has bytes that are not UTF-8 \(e9 0a\); save it as UTF-8"),
        (b"\0" * 64, "NUL bytes"),
        (b"PK\x03\x04" + bytes(60), "is a zip archive, as .xlsx"),
        (b"\x80\x04\x95" + bytes(60), "is a Python pickle, which is never read"),
        ('{"N": 1, "N": 2}', "has 2 columns named 'N'"),
        ('{"N": 1}\n[1]\n', "line 2 is no JSON object"),
        ('{"N": 1}\n{"N": \n', "line 2"),
        ("[]", "JSON without a run"),
        ("{}", "JSON without a run"),
        ("[" * 100_000, "nested too deeply"),
        ('{"a":' * 100_000, "nested too deeply"),
        (gzip.compress(b"N,D\n1,2\n", mtime=0)[:-9], "is damaged: "),
        (zstandard.compress(b"N,D\n1,2\n" * 99)[:-3], "is damaged: the compressed file ends before"),
        (gzip.compress(bytes(2**27), mtime=0), "unpacks to more than 64|unpacks to more than 9"),
    ],
    ids=lambda v: repr(v[:24]) if isinstance(v, bytes) else v[:24],
)
def test_what_is_no_sound_table_is_refused_in_one_sentence(tmp_path, content, words):
    path = tmp_path / "runs"
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    with pytest.raises(UserError, match=words) as refused:
        table_files.read(path)
    assert "\n" not in str(refused.value)


@pytest.mark.parametrize("ending", ["csv.gz", "csv.zst", "parquet"])
def test_a_name_that_promises_what_the_content_is_not(tmp_path, ending):
    path = tmp_path / f"runs.{ending}"
    path.write_text("N,D\n1,2\n")
    with pytest.raises(UserError, match="is damaged, or not what its name says"):
        table_files.read(path)


def test_torn_parquet_files_give_one_sentence(tmp_path):
    table = pd.DataFrame({"N": np.arange(2000.0), "router": "top_k"})
    whole, path = table.to_parquet(), tmp_path / "runs.parquet"
    flipped = bytearray(whole)
    flipped[len(whole) // 3] ^= 255
    for torn in (whole[:-1], whole[: len(whole) // 2], whole[:4], whole[:-8] + b"\xff\xff\xff\x7fPAR1", bytes(flipped)):
        path.write_bytes(torn)
        try:
            read, _ = table_files.read(path)
        except UserError as e:
            assert "\n" not in str(e) and "damaged" in str(e)
        else:  # a flipped bit may leave another value, as in a CSV
            assert torn == bytes(flipped) and read.shape == table.shape


def test_a_parquet_file_of_more_cells_than_can_be_read_is_refused_unread(tmp_path, monkeypatch):
    monkeypatch.setattr(table_files, "_CELLS", 100)
    path = tmp_path / "runs.parquet"
    path.write_bytes(pd.DataFrame({"N": np.arange(101.0)}).to_parquet())
    with pytest.raises(UserError, match="101 rows of 1 columns: at most 100 cells can be read"):
        table_files.read(path)


def test_parquet_columns_of_other_types_are_plain(tmp_path):
    """Dictionaries, integers with gaps, lists, decimals, dates."""
    table = pd.DataFrame(
        {
            "router": pd.Categorical(["a", "b", "a"]),
            "k": pd.array([1, None, 3], "Int64"),
            "l": [[1]] * 3,
            "loss": [decimal.Decimal("2.75")] * 3,
            "day": [datetime.date(2025, 1, i) for i in (1, 2, 3)],
        }
    )
    path = tmp_path / "runs.parquet"
    table.to_parquet(path)
    read, _ = rows.load(path)
    assert list(read["router"]) == ["a", "b", "a"] and not read.duplicated().any()
    np.testing.assert_array_equal(number_texts.of_column(read["k"]), [1, np.nan, 3])
    np.testing.assert_array_equal(number_texts.of_column(read["loss"]), [2.75] * 3)
    assert list(read["day"]) == ["2025-01-01", "2025-01-02", "2025-01-03"]


def test_a_key_that_a_json_row_lacks_is_an_empty_cell(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text('{"N": 1e9, "D": 4e9}\n\n{"N": 2e9, "loss": 2.5}\n')
    read, _ = table_files.read(path)
    assert read["D"].isna().tolist() == [False, True] and read["loss"].isna().tolist() == [True, False]


@pytest.mark.parametrize(
    ("cells", "expected"),
    [
        (["1.4B", "3e9 ", "70 m", "2K", "5T"], [1.4e9, 3e9, 70e6, 2e3, 5e12]),
        (["8.2B", "8200M", "57%", "1.5e2k"], [8.2e9, 8.2e9, 0.57, 150e3]),  # the nearest float: 8.2 · 1e9 is not
        (["12%", "-0.5 %"], [0.12, -0.005]),
        (["1,400,000,000", "2,000", "-3,000.5"], [1.4e9, 2000, -3000.5]),
        (["1,400", "2"], [np.nan, 2]),  # 1.4 or 1400
        (["1,40,000,000", "14,00", "0,001,000", "1.4.0", "1.4G", "0x10", "١٢"], [np.nan] * 7),
        (["", " ", None], [np.nan] * 3),
        ([10**30, 2**70], [1e30, 2.0**70]),
        (pd.to_datetime(["2024-01-01"]), [np.nan]),
    ],
)
def test_the_rule_for_numbers_in_texts(cells, expected):
    np.testing.assert_array_equal(number_texts.of_column(pd.Series(cells)), expected)


@given(number=st.integers(1, 10**15), digits=st.integers(0, 3))
@settings(max_examples=50, deadline=None)
def test_thousands_separators_of_python_are_read_back(number, digits):
    text = f"{number:,}" + ("." + "0" * digits if digits else "")
    surely = pd.Series([text, "1,000,000"])
    assert number_texts.of_column(surely)[0] == number
