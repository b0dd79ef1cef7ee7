import gzip
import json
import os
import subprocess
import sys

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from moe_jax.cli import command, prepare
from moe_jax.data.prepare import documents as documents_lib
from moe_jax.data.prepare import listing
from moe_jax.data.prepare.text_files import TextFiles, c4
from moe_jax.data.store import open_store
from moe_jax.errors import BAD_INPUT, UserError
from tests.data_stores import contents


def read(pattern, seed=0, **fields):
    """All documents, and the reasons of those that were skipped, in order."""
    source, skipped = TextFiles("files", {None: str(pattern)}, seed, **fields), []
    found = [d for shard in range(source.n_shards) for d in source.documents(shard, skipped.append)]
    return [d.text for d in found], skipped


def json_lines(texts):
    return "".join(json.dumps({"text": t}) + "\n" for t in texts).encode()


COMPRESS = {"": bytes, ".gz": gzip.compress, ".zst": zstandard.ZstdCompressor().compress}


@pytest.mark.parametrize("suffix", COMPRESS)
def test_reads_text_and_json_lines_plain_and_compressed(tmp_path, suffix):
    texts = [f"text {i}\nof two lines" for i in range(50)]
    (tmp_path / "deep").mkdir()
    (tmp_path / f"a.jsonl{suffix}").write_bytes(COMPRESS[suffix](json_lines(texts)))
    (tmp_path / "deep" / f"b.txt{suffix}").write_bytes(COMPRESS[suffix](b"one\ntwo\n"))
    (tmp_path / "c.bin").write_bytes(b"not asked for")
    everything = [*texts, "one\ntwo\n"]
    assert read(tmp_path) == (everything, [])
    assert read(tmp_path / f"a.jsonl{suffix}") == (texts, [])
    assert read(tmp_path / "*" / "b.*") == (["one\ntwo\n"], [])


def test_reads_several_frames_and_the_field_it_is_told(tmp_path):
    halves = [json.dumps({"content": c, "text": 1}).encode() + b"\n" for c in "ab"]
    for suffix in (".gz", ".zst"):
        path = tmp_path / f"a.jsonl{suffix}"
        path.write_bytes(b"".join(COMPRESS[suffix](half) for half in halves))
        assert read(path, text_field="content") == (["a", "b"], [])


def test_each_bad_line_is_skipped_for_its_reason(tmp_path, monkeypatch):
    monkeypatch.setattr(documents_lib, "MAX_LINE", 300_000)
    lines = {
        b'{"text": "good"}': None,
        b'{"text": "caf\xe9"}': "not UTF-8",
        b'{"text": "half \\ud800"}': "not UTF-8",
        b'{"text": "a \\u0000 b"}': "NUL character",
        b"\x89PNG\x00\x01": "not UTF-8",
        b"{": "not JSON",
        b"[" * 190: "not JSON",
        b"[" * 10**5: "JSON nested too deeply",
        b'{"text": "x", "deep": ' + b"[" * 10**5 + b"]" * 10**5 + b"}": "JSON nested too deeply",
        b'["text"]': "no text in text",
        b'{"title": "x"}': "no text in text",
        b'{"text": 5}': "no text in text",
        b'{"text": ""}': "empty text",
        b'{"text": "' + b"x" * 300_000 + b'"}': "line above 64 MiB",
        b"   ": None,
        b'{"text": "last"}': None,
    }
    (tmp_path / "a.jsonl").write_bytes(b"\xef\xbb\xbf" + b"\r\n".join(lines))
    assert read(tmp_path) == (["good", "last"], [reason for reason in lines.values() if reason])


@pytest.mark.parametrize("pattern", ["", "*", "*/*"])
def test_a_file_is_read_once_whatever_links_lead_to_it(tmp_path, pattern):
    (tmp_path / "b").mkdir()
    (tmp_path / "b" / "b.txt").write_text("once")
    (tmp_path / "self").symlink_to(tmp_path)
    (tmp_path / "c").symlink_to("b")
    (tmp_path / "a.txt").symlink_to("b/b.txt")
    assert read(tmp_path / pattern) == (["once"], [])


def test_long_texts_are_cut_after_lines(tmp_path, monkeypatch):
    monkeypatch.setattr(documents_lib, "MAX_BLOCK", 10)
    (tmp_path / "a.txt").write_bytes(b"abc\ndef\nghi\n" + "éééééééé\nen".encode())
    documents, skipped = read(tmp_path)
    assert documents == ["abc\ndef\n", "ghi\n", "ééééé", "ééé\nen"]
    assert skipped == []


TEXT = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0\ufeff"), max_size=60)


@settings(deadline=None, max_examples=200)
@given(texts=st.lists(TEXT, min_size=1, max_size=6), block=st.integers(4, 20), ranges=st.integers(1, 30))
def test_nothing_is_lost_or_doubled_wherever_a_file_is_cut(tmp_path_factory, texts, block, ranges):
    folder = tmp_path_factory.mktemp("cut")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(documents_lib, "MAX_BLOCK", block)
        patch.setattr(listing, "RANGE_BYTES", ranges)
        joined = "\n".join(texts)
        (folder / "a.txt").write_bytes(joined.encode())
        documents, skipped = read(folder)
        assert ("".join(documents), skipped) == (joined, [])
        assert all(0 < len(d.encode()) <= block for d in documents)
        (folder / "a.txt").unlink()
        (folder / "a.jsonl").write_bytes(json_lines(texts))
        assert read(folder)[0] == [t for t in texts if t]


def test_unusable_blocks_are_skipped_and_the_rest_is_kept(tmp_path):
    good = "good\n" * (documents_lib.MAX_BLOCK // 5)
    (tmp_path / "a.txt").write_bytes(good.encode() + b"zero \0\n")
    (tmp_path / "b.txt").write_bytes("café\n".encode("latin-1") * 20_000)
    (tmp_path / "c.txt").write_bytes(b"")
    assert read(tmp_path) == ([good], ["NUL character", "not UTF-8", "not UTF-8"])


def test_what_is_held_out_depends_on_the_place_below_the_folder(tmp_path):
    texts = [f"{i}" for i in range(5000)]

    def held_out(folder, seed, ranges=2**26):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(listing, "RANGE_BYTES", ranges)
            source = TextFiles("files", {None: str(folder)}, seed)
            documents = [d for s in range(source.n_shards) for d in source.documents(s, pytest.fail)]
        return [d.text for d in documents if d.split == "heldout"]

    for folder in ("x", "y"):
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "a.jsonl").write_bytes(json_lines(texts))
    held = held_out(tmp_path / "x", 0)
    assert 20 < len(held) < 90  # 50 expected, standard deviation 7
    assert held_out(tmp_path / "y", 0) == held
    assert held_out(tmp_path / "y", 0, ranges=1000) == held
    assert held_out(tmp_path / "x", 1) != held


def test_c4_holds_out_its_validation_files(tmp_path):
    for split, texts in {"train": ["a", "b"], "validation": ["c"]}.items():
        (tmp_path / f"c4-{split}.00000-of-00001.json.gz").write_bytes(gzip.compress(json_lines(texts)))
    source = c4(str(tmp_path), 0)
    found = [d for s in range(source.n_shards) for d in source.documents(s, pytest.fail)]
    assert [(d.split, d.text) for d in found] == [("train", "a"), ("train", "b"), ("heldout", "c")]
    with pytest.raises(UserError, match="no text files"):
        _ = c4(str(tmp_path / "none"), 0).n_shards


DAMAGED = {
    "cut.jsonl.gz": gzip.compress(json_lines(["x" * 1000] * 100))[:-20],
    "cut.jsonl.zst": zstandard.compress(json_lines(["x" * 1000] * 100))[:-5],
    "wrong.jsonl.gz": b"not gzip at all",
    "wrong.jsonl.zst": b"not zstandard at all",
    "bomb.txt.gz": gzip.compress(b" " * 10**8),
    "bomb.jsonl.zst": zstandard.compress(b"x" * 10**9),
}


@pytest.mark.parametrize("name", DAMAGED)
def test_damaged_files_and_bombs_stop_with_a_sentence(tmp_path, name):
    (tmp_path / name).write_bytes(DAMAGED[name])
    with pytest.raises(UserError, match=f"{name} (is damaged|decompresses to more than 250 times)"):
        read(tmp_path / name)


def _dangling(path):
    path.symlink_to("nowhere")


UNREADABLE = {
    "a.txt": (_dangling, "cannot be read: No such file"),
    "b.txt": (os.mkfifo, "cannot be read: it is a pipe"),
    "empty.jsonl.gz": (lambda path: path.touch(), "is damaged: it is empty"),
    "empty.txt.zst": (lambda path: path.touch(), "is damaged: it is empty"),
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("pattern", ["", "*", "NAME"])
def test_what_cannot_be_read_stops_with_a_sentence(tmp_path, name, pattern):
    make, says = UNREADABLE[name]
    (tmp_path / "good.txt").write_text("good")
    make(tmp_path / name)
    with pytest.raises(UserError, match=f"{name} {says}"):
        read(tmp_path / pattern.replace("NAME", name))


@pytest.mark.parametrize("suffix", COMPRESS)
def test_endings_count_in_any_case_and_names_need_not_be_utf8(tmp_path, suffix):
    (tmp_path / f"A.TXT{suffix.upper()}").write_bytes(COMPRESS[suffix](b"text"))
    (tmp_path / os.fsdecode(f"b\xff.JsonL{suffix}".encode("latin-1"))).write_bytes(
        COMPRESS[suffix](json_lines(["line"]))
    )
    assert read(tmp_path) == (["text", "line"], [])


def test_two_stars_are_refused(tmp_path):
    with pytest.raises(UserError, match="name the folder above"):
        read(tmp_path / "**" / "*.jsonl")


def test_a_file_that_vanished_stops_with_a_sentence(tmp_path):
    (tmp_path / "a.txt").write_text("x")
    source = TextFiles("files", {None: str(tmp_path)}, 0)
    assert source.n_shards == 1
    (tmp_path / "a.txt").unlink()
    with pytest.raises(UserError, match=r"a.txt cannot be read: No such file"):
        list(source.documents(0, pytest.fail))


@pytest.mark.parametrize("content", [b"x" * 10**8, b'{"text": "' + b"y" * 10**8 + b'"}\n{"text": "after"}\n'])
def test_a_line_of_100_mb_takes_bounded_memory(tmp_path, content):
    name = "a.txt" if content.startswith(b"x") else "a.jsonl"
    (tmp_path / name).write_bytes(content)
    code = (
        "import resource; from moe_jax.data.prepare.text_files import TextFiles\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss; skipped = []\n"
        f"s = TextFiles('f', {{None: {str(tmp_path)!r}}}, 0)\n"
        "n = sum(len(d.text) for i in range(s.n_shards) for d in s.documents(i, skipped.append))\n"
        "print(n, len(skipped), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    n, skipped, kilobytes = map(int, out.split())
    assert (n, skipped) == ((10**8, 0) if name == "a.txt" else (len("after"), 1))
    assert kilobytes < 200_000


def test_changed_files_change_their_shards_fingerprint_only(tmp_path):
    for name in ("a.txt", "b.txt"):
        (tmp_path / name).write_text(name)
    before = TextFiles("f", {None: str(tmp_path)}, 0)
    before = [before.fingerprint(s) for s in range(2)]
    (tmp_path / "b.txt").write_text("B.txt")
    os.utime(tmp_path / "b.txt", (0, 0))  # times of objects are in seconds
    after = TextFiles("f", {None: str(tmp_path)}, 0)
    assert [after.fingerprint(s) == before[s] for s in range(2)] == [True, False]


def test_prepare_takes_files_by_name_with_any_number_of_workers(tmp_path, capsys):
    folder = tmp_path / "text"
    folder.mkdir()
    for i in range(5):
        (folder / f"{i}.jsonl.gz").write_bytes(gzip.compress(json_lines([f"{i} {j}" for j in range(200)]) + b"bad\n"))
    for workers in (1, 3):
        flags = [f"--mixture=files:{folder}", f"--store={tmp_path / f's{workers}'}", f"--workers={workers}"]
        assert command.run(prepare.main, flags) == 0
    assert "skipped 5 (not JSON)" in capsys.readouterr().out
    assert contents(tmp_path / "s1") == contents(tmp_path / "s3")
    info = open_store(str(tmp_path / "s1")).info
    assert sum(info.documents.values()) == 1000
    assert info.skipped == {"not JSON": 5}
    assert info.source["files"] == 5


def test_prepare_says_where_there_is_nothing(tmp_path, capsys):
    for mixture in (f"files:{tmp_path}", f"files:{tmp_path}/*.txt", f"c4:{tmp_path}", f"files:{tmp_path / 'none'}"):
        assert command.run(prepare.main, [f"--mixture={mixture}", f"--store={tmp_path / 's'}"]) == BAD_INPUT
        assert "no text files" in capsys.readouterr().err
    (tmp_path / "a.jsonl").write_bytes(json_lines(["one", "two"]) + b"three\n")
    flags = [f"--mixture=files:{tmp_path}", f"--store={tmp_path / 'n'}", "--text_field=body"]
    assert command.run(prepare.main, flags) == BAD_INPUT
    assert "3 skipped (2 no text in body, 1 not JSON), and 0 documents kept" in capsys.readouterr().err
    (tmp_path / "a.txt").write_text("just one document")
    assert command.run(prepare.main, [f"--mixture=files:{tmp_path}/*.txt", f"--store={tmp_path / 's'}"]) == BAD_INPUT
    assert "1 documents to train on, 0 held out" in capsys.readouterr().err
