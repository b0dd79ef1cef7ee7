"""Which files of a folder are read, which are left out and counted, and when all of it is refused."""

import re

import pytest

from moe_jax.cli import command, prepare
from moe_jax.data.prepare.text_files import TextFiles
from moe_jax.data.store import open_store
from moe_jax.errors import BAD_INPUT, DONE, UserError
from tests.data.prepare.test_text_files import json_lines, read
from tests.data_stores import words


def run(capsys, *flags):
    """Exit code, standard output and standard error of `moe-jax prepare` in this process."""
    code = command.run(prepare.main, ["--workers=1", *map(str, flags)])
    return code, *capsys.readouterr()


def write(folder, contents):
    for name, content in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)


MIXED = {
    "README.md": b"about",
    "deep/a.txt": b"text",
    "b.jsonl": json_lines(["one", "two", "three", "four"]) + b"{\n",
    "deep/c.PNG": b"\x89PNG\r\n\x1a\n\0",
    "c.png": b"\x89PNG\r\n\x1a\n\0",
    "LICENSE": b"free",
    ".gitattributes": b"* text\n",
    "_SUCCESS": b"",
}


def test_other_files_of_a_folder_are_left_out_and_counted(tmp_path, capsys):
    write(tmp_path / "in", MIXED)
    assert read(tmp_path / "in") == (["about", "one", "two", "three", "four", "text"], ["not JSON"])
    code, out, _ = run(capsys, f"--mixture=files:{tmp_path / 'in'}", f"--store={tmp_path / 's'}")
    assert code == DONE
    skipped = {".png file": 2, "file without ending": 1, "not JSON": 1}
    assert open_store(str(tmp_path / "s")).info.skipped == skipped
    assert "skipped 2 (.png file); skipped 1 (file without ending); skipped 1 (not JSON)" in out
    source = TextFiles("files", {None: str(tmp_path / "in" / "*.jsonl")}, 0)
    assert source.skipped_files == {}
    with pytest.raises(UserError, match=r"c\.png is a PNG image"):  # a glob says exactly what is read
        read(tmp_path / "in" / "*.*")


def test_many_endings_are_counted_together(tmp_path):
    write(tmp_path, {"a.txt": b"text"} | {f"{i}.{i % 50}": b"" for i in range(100)})
    counted = TextFiles("files", {None: str(tmp_path)}, 0).skipped_files
    assert len(counted) == 6
    assert counted["file of another ending"] == 90


MOSTLY = {  # files, what is skipped and kept, and what mends it
    "pictures": (
        {"README.md": b"about"} | {f"{i}.png": b"\x89PNG\r\n\x1a\n" for i in range(3)},
        r"3 skipped \(3 .png file\), and 1 documents kept",
        lambda folder: write(folder, {f"{i}.txt": b"text" for i in range(3)}) or [],
    ),
    "another field": (
        {"a.jsonl": b'{"body": "one"}\n{"body": "two"}\n{"text": "three"}\nfour\n'},
        r"3 skipped \(2 no text in text, 1 not JSON\), and 1 documents kept",
        lambda folder: ["--text_field=body"],
    ),
    "a few too long": (
        {"a.jsonl": json_lines(["one", "two"]) + b"three\n" * 3},
        r"3 skipped \(3 not JSON\), and 2 documents kept",
        lambda folder: write(folder, {"a.jsonl": json_lines(["one", "two"]) + b"three\n" * 2}) or [],
    ),
}


@pytest.mark.parametrize("case", MOSTLY)
def test_what_is_mostly_skipped_is_refused_until_it_is_mended(tmp_path, capsys, case):
    contents, says, mend = MOSTLY[case]
    write(tmp_path / "in", contents)
    flags = [f"--mixture=files:{tmp_path / 'in'}", f"--store={tmp_path / 's'}"]
    code, _, err = run(capsys, *flags)
    assert code == BAD_INPUT
    assert re.search(f"is mostly unusable: {says}; mend it, name the field", err)
    assert err.count("\n") == 1
    assert not list((tmp_path / "s").rglob("*"))
    assert run(capsys, *flags, *mend(tmp_path / "in"))[0] == DONE


def test_a_vocabulary_that_cannot_be_trained_says_what_was_skipped(tmp_path, capsys):
    write(tmp_path / "in", {"a.jsonl": json_lines(text for _, text in words(0, 200)).replace(b'"text"', b'"body"')})
    flags = [f"--mixture=files:{tmp_path / 'in'}", f"--store={tmp_path / 's'}", "--vocabulary=bpe:300"]
    code, _, err = run(capsys, *flags)
    assert code == BAD_INPUT
    assert "200 no text in text" in err
    assert run(capsys, *flags, "--text_field=body")[0] == DONE


@pytest.fixture
def cache(tmp_path):
    """A folder of links into another one, as in a Hugging Face cache."""
    write(tmp_path / "blobs", {"0a": b"first", "0b": json_lines(["second"]), "deep/c.txt": b"third"})
    (tmp_path / "snapshot").mkdir()
    (tmp_path / "snapshot" / "a.txt").symlink_to("../blobs/0a")
    (tmp_path / "snapshot" / "b.jsonl").symlink_to(tmp_path / "blobs" / "0b")
    return tmp_path / "snapshot"


@pytest.mark.parametrize("pattern", ["", "*", "*.txt"])
def test_links_out_of_the_folder_are_refused_or_followed(cache, capsys, pattern):
    with pytest.raises(UserError, match=r"a.txt is a symbolic link out of .*/snapshot, to .*/0a; give --follow_links"):
        read(cache / pattern)
    assert read(cache / pattern, follow_links=True)[0] == ["first", "second"][: 1 + (pattern != "*.txt")]
    store = cache.parent / "s"
    flags = [f"--mixture=files:{cache}", f"--store={store}"]
    assert run(capsys, *flags)[0] == BAD_INPUT
    assert not store.exists()
    assert run(capsys, *flags, "--follow_links")[0] == DONE
    assert run(capsys, *flags)[0] == DONE  # it is no setting of the store


def test_a_link_is_read_that_is_named_or_stays_inside(cache):
    assert read(cache / "a.txt")[0] == ["first"]
    (cache.parent / "link").symlink_to("blobs/deep")
    assert read(cache.parent / "link")[0] == ["third"]
    (cache.parent / "blobs" / "deep" / "d.txt").symlink_to("c.txt")
    assert read(cache.parent / "blobs")[0] == ["third"]


@pytest.mark.parametrize("pattern", ["", "*/*"])
def test_a_linked_folder_is_read_once_if_links_are_followed(cache, pattern):
    for name in ("a.txt", "b.jsonl"):
        (cache / name).unlink()
    (cache / "deep").symlink_to("../blobs/deep")
    (cache / "again").symlink_to("../blobs/deep")
    (cache.parent / "blobs" / "deep" / "back").symlink_to(cache)
    with pytest.raises(UserError, match="is a symbolic link out of"):
        read(cache / pattern)
    assert read(cache / pattern, follow_links=True)[0] == ["third"]
