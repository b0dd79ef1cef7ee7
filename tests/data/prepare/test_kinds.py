"""Files that are not what they seem: read as what they are, or refused by name."""

import csv
import gzip
import io
import json
import pickle
import zipfile

import pyarrow as pa
import pytest
import zstandard
from pyarrow import ipc, parquet

from moe_jax.data.prepare import documents as documents_lib
from moe_jax.data.prepare import json_values
from moe_jax.errors import UserError
from tests.data.prepare.test_text_files import COMPRESS, json_lines, read

TEXTS = ["one", 'two, "quoted"', "three\nlines\r\nof text", "café 🜚", "\ttabs\t"]
ODD = [None, "", "a\0b"]
ODD_REASONS = ["no text in text", "empty text", "NUL character"]


def packed(table, kind):
    """The bytes of a Parquet file, an Arrow file or an Arrow stream."""
    sink = io.BytesIO()
    if kind == "parquet":
        parquet.write_table(table, sink, row_group_size=2)
    else:
        with (ipc.new_file if kind == "file" else ipc.new_stream)(sink, table.schema) as writer:
            writer.write_table(table, max_chunksize=2)
    return sink.getvalue()


def delimited(rows, delimiter=","):
    out = io.StringIO()
    csv.writer(out, delimiter=delimiter).writerows(rows)
    return out.getvalue().encode()


STRINGS = {
    "string": pa.string(),
    "large_string": pa.large_string(),
    "dictionary": pa.dictionary(pa.int32(), pa.string()),
}


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
@pytest.mark.parametrize("strings", STRINGS)
def test_the_text_column_of_arrow_tables_is_read_whatever_the_file_is_called(tmp_path, kind, strings):
    texts = pa.array(TEXTS + ODD).cast(STRINGS[strings])
    other = pa.array(range(len(texts)))
    category = pa.array(["a", "b"] * (len(texts) // 2)).dictionary_encode()
    table = pa.table({"id": other, "category": category, "body": texts, "text": other})
    for name in ("a.parquet", "a.arrow", "a.txt", "a.jsonl"):
        (tmp_path / name).write_bytes(packed(table, kind))
        reasons = [reason.replace("in text", "in body").replace("empty text", "empty body") for reason in ODD_REASONS]
        assert read(tmp_path, text_field="body") == (TEXTS, reasons)
        with pytest.raises(UserError, match=f"{name}: its column text holds int64, not text"):
            read(tmp_path)
        with pytest.raises(UserError, match=r"no column named words; its columns are id, category, body, text; name"):
            read(tmp_path, text_field="words")
        (tmp_path / name).unlink()


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_damaged_arrow_tables_stop_with_a_sentence(tmp_path, kind):
    whole = packed(pa.table({"text": ["some text"] * 100}), kind)
    batch = len(packed(pa.table({"text": ["some text"] * 100}), "stream")) - 8  # all but the mark of the end
    damaged = [whole[:20], whole[:-5], whole[: len(whole) // 2], whole + whole]
    for content in [*damaged, whole[:batch]] if kind == "stream" else damaged[:3]:
        (tmp_path / "a.arrow").write_bytes(content)
        with pytest.raises(UserError, match=r"a\.arrow is damaged"):
            read(tmp_path)


@pytest.mark.parametrize("kind", ["parquet", "file", "stream"])
def test_names_of_columns_that_are_not_utf8_are_damage(tmp_path, kind):
    whole = packed(pa.table({"text": ["a"], "other": ["b"]}), kind)
    (tmp_path / "a.arrow").write_bytes(whole.replace(b"other", b"oth\xe9r"))
    with pytest.raises(UserError, match=r"a\.arrow is damaged"):
        read(tmp_path)


@pytest.mark.parametrize("kind", ["file", "stream"])
def test_offsets_that_lead_out_of_an_arrow_file_are_damage(tmp_path, kind):
    good = packed(pa.table({"text": ["abc", "defg"]}), kind)
    offsets = b"".join(n.to_bytes(4, "little") for n in (0, 3, 7))
    assert good.count(offsets) == 1
    (tmp_path / "a.arrow").write_bytes(good.replace(offsets, offsets[:8] + (2**30).to_bytes(4, "little")))
    with pytest.raises(UserError, match=r"a\.arrow is damaged"):
        read(tmp_path)


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize(("name", "delimiter"), [("a.csv", ","), ("a.TSV", "\t")])
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_a_column_of_csv_and_tsv_is_read(tmp_path, suffix, name, delimiter, encoding):
    header, rows = ["text", "n"], [[text, "1"] for text in [*TEXTS, ""]]
    content = delimited([header, *rows, [], ["too", "many", "fields"], ["few"]], delimiter)
    (tmp_path / (name + suffix)).write_bytes(COMPRESS[suffix](content.decode().encode(encoding)))
    length = "row with another number of fields than the header"
    texts, skipped = read(tmp_path)
    assert (texts, skipped) == (TEXTS, ["empty text", length, length])


BAD_TABLES = {
    "missing.csv": (b"id,body\n1,a\n", r"no column named text; its columns are id, body; name"),
    "twice.csv": (b"text,text\na,b\n", r"2 columns named text"),
    "wide.csv": (b",".join([b"x" * 100] * 50), r"columns are x{40}…, .* and 30 more; name"),
    "empty.tsv": (b"", r"is empty, where a TSV file has a line that names its columns"),
    "open.csv": (b'text,n\n"a,1\nb,2\n', r"is damaged at line 3: unexpected end of data"),
    "bare.csv": (b'text,n\n"a" b,1\n', r"is damaged at line 2: ',' expected after '\"'"),
    "no.parquet": (b"<html>404</html>", r"does not begin as Parquet or Arrow do, but with b'<html>40'"),
    "cut.arrow": (b"", r"does not begin as Parquet or Arrow do, but with b''"),
    "packed.parquet.gz": (gzip.compress(packed(pa.table({"text": ["a"]}), "parquet")), "a compressed Parquet"),
}


@pytest.mark.parametrize("name", BAD_TABLES)
def test_tables_without_the_text_are_refused_in_one_sentence(tmp_path, name):
    content, says = BAD_TABLES[name]
    (tmp_path / name).write_bytes(content)
    with pytest.raises(UserError, match=f"{name} .*{says}"):
        read(tmp_path)


def test_bytes_that_are_not_utf8_cost_their_record_alone(tmp_path):
    (tmp_path / "a.csv").write_bytes(b"text\ngood\ncaf\xe9\nlast\n")
    (tmp_path / "b.json").write_bytes(b'[{"text": "good"}, {"text": "caf\xe9"}, {"text": "last"}]')
    assert read(tmp_path) == (["good", "last"] * 2, ["not UTF-8"] * 2)


RECORDS = [{"text": text} for text in TEXTS + ODD] + [7, ["text"], {}]
WRITTEN = {
    "compact": json.dumps(RECORDS),
    "a record a line": "[\n" + ",\n".join(map(json.dumps, RECORDS)) + "\n]\n",
    "indented": "\n" + json.dumps(RECORDS, indent=2),
    "indented records": "\n".join(json.dumps(record, indent=2) for record in RECORDS),
}


@pytest.mark.parametrize("suffix", COMPRESS)
@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-32"])
def test_json_arrays_and_records_of_several_lines_are_read(tmp_path, monkeypatch, suffix, written, encoding):
    (tmp_path / f"a.json{suffix}").write_bytes(COMPRESS[suffix](WRITTEN[written].encode(encoding)))
    for part in (2**20, 7, 1):  # values are cut anywhere
        monkeypatch.setattr(json_values, "_PART", part)
        assert read(tmp_path) == (TEXTS, ODD_REASONS + ["no text in text"] * 3)


BAD_JSON = {
    b'[{"text": "a"}, {"text": "b"': "after 1 whole values",
    b'[{"text": "a"} {"text": "b"}]': "after 1 whole values .the array goes on without a comma",
    b'[{"text": "a"}]\n{"text": "b"}\n': "after 1 whole values .there is more after the end",
    b'[{"text": "a"},]': "after 1 whole values",
    b'["text"]\n["text"]\n': "there is more after the end of the array",
    b"[" * 10**5: "after 0 whole values .it is nested too deeply",
    b'[{"text": "' + b"x" * 3000 + b'"}]': "it is above 64 MiB",
    b'{\n "text": "a"\n}\n{\n': "after 1 whole values",
}


@pytest.mark.parametrize("content", BAD_JSON)
def test_json_that_is_broken_between_records_is_refused(tmp_path, monkeypatch, content):
    monkeypatch.setattr(json_values, "MAX_LINE", 2000)
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(UserError, match=f"a.json is damaged: .*{BAD_JSON[content]}"):
        read(tmp_path)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-32"])
@pytest.mark.parametrize("suffix", COMPRESS)
def test_text_with_a_byte_order_mark_is_decoded(tmp_path, monkeypatch, encoding, suffix):
    monkeypatch.setattr(documents_lib, "MAX_BLOCK", 10)
    (tmp_path / f"a.jsonl{suffix}").write_bytes(COMPRESS[suffix](json_lines(TEXTS).decode().encode(encoding)))
    (tmp_path / f"b.txt{suffix}").write_bytes(COMPRESS[suffix]("né\nsecond\n🜚".encode(encoding)))
    assert read(tmp_path) == ([*TEXTS, "né\n", "second\n", "🜚"], [])
    (tmp_path / f"b.txt{suffix}").write_bytes(COMPRESS[suffix]("cut".encode(encoding)[:-1]))
    with pytest.raises(UserError, match=f"b.txt{suffix} is damaged: .*truncated"):
        read(tmp_path)


def _zip():
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as file:
        file.writestr("a.txt", "text")
    return out.getvalue()


BINARIES = {
    "a zip archive": _zip(),
    "a Python pickle": pickle.dumps(["text"]),
    "compressed with gzip": gzip.compress(b"text"),
    "compressed with Zstandard": zstandard.compress(b"text"),
    "a PNG image": b"\x89PNG\r\n\x1a\n",
    "a JPEG image": b"\xff\xd8\xff\xe0",
    "a PDF": b"%PDF-1.7\n1 0 obj\n",
    "a program": b"\x7fELF\x02\x01\x01",
    "a safetensors file": (20).to_bytes(8, "little") + b'{"__metadata__":{}} ',
    "an SQLite database": b"SQLite format 3\0",
    "a tar archive": b"name.txt" + b" " * 249 + b"ustar",
    "a Git LFS pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:1\nsize 2\n",
    "a binary file, or UTF-16 without": "text".encode("utf-16-le"),
}


@pytest.mark.parametrize("says", BINARIES)
def test_binaries_under_an_ending_of_text_are_refused_by_name(tmp_path, says):
    (tmp_path / "good.txt").write_text("good")
    for name in ("a.txt", "a.jsonl", "a.csv", "a.txt.gz", "a.jsonl.zst"):
        (tmp_path / name).write_bytes(
            COMPRESS[name[name.rindex(".") :] if name.count(".") == 2 else ""](BINARIES[says])
        )
        with pytest.raises(UserError, match=f"{name} is {says}"):
            read(tmp_path)
        (tmp_path / name).unlink()


def test_a_broken_line_does_not_make_a_binary_of_jsonl(tmp_path):
    (tmp_path / "a.jsonl").write_bytes(json_lines(["one"]) + b"\0" * 50 + b"\n" + json_lines(["two"]))
    assert read(tmp_path) == (["one", "two"], ["not JSON"])
