import shutil
from pathlib import Path

import pytest

from moe_jax.data.prepare.corpus import PythonLibrary
from moe_jax.errors import UserError


@pytest.fixture
def library(tmp_path):
    """100 files of 100-300 bytes and things that are no documents."""
    root = tmp_path / "lib"
    for i in range(100):
        file = root / f"package{i % 7}" / f"m{i}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(f"x = {i}\n" * (12 + i % 20))
    for left_out in ("test", "package1/tests", "site-packages/numpy", "package2/__pycache__"):
        (root / left_out).mkdir(parents=True)
        (root / left_out / "no.py").write_text("no = 1\n")
    (root / "data.txt").write_text("no\n")
    return root


def documents(root, seed=0):
    source, skipped = PythonLibrary(seed, str(root)), []
    found = [d for shard in range(source.n_shards) for d in source.documents(shard, skipped.append)]
    return found, skipped


def test_reads_every_file_once_by_path_and_nothing_else(library):
    found, skipped = documents(library)
    paths = sorted(p.relative_to(library).as_posix() for p in library.glob("package*/m*.py"))
    assert [d.text for d in found] == [(library / p).read_text() for p in paths]
    assert skipped == []


def test_holds_out_whole_files_one_percent_of_the_bytes(library):
    found, _ = documents(library)
    held = sum(len(d.text) for d in found if d.split == "heldout")
    total = sum(len(d.text) for d in found)
    assert 0.01 * total <= held <= 0.01 * total + 300


def test_what_is_held_out_depends_on_the_seed_and_on_relative_paths_only(library, tmp_path):
    def held(root, seed):
        return [d.text for d in documents(root, seed)[0] if d.split == "heldout"]

    shutil.copytree(library, tmp_path / "elsewhere")
    assert held(library, 0) == held(tmp_path / "elsewhere", 0)
    assert len({tuple(held(library, seed)) for seed in range(5)}) > 1


def test_a_file_that_is_not_utf8_is_skipped_and_counted(library):
    (library / "package0" / "latin.py").write_bytes(b"# caf\xe9\n")
    found, skipped = documents(library)
    assert skipped == ["not UTF-8"]
    assert len(found) == 100


def test_a_fingerprint_changes_with_the_shards_files(library):
    before = [PythonLibrary(0, str(library)).fingerprint(s) for s in range(16)]
    last = sorted(library.glob("package6/*.py"))[-1]
    last.write_text(last.read_text() + "# more\n")
    after = [PythonLibrary(0, str(library)).fingerprint(s) for s in range(16)]
    assert before[-1] != after[-1]
    assert before[:-1] == after[:-1]


def test_an_unreadable_library_is_one_sentence(tmp_path):
    with pytest.raises(UserError, match="cannot be read: No such file"):
        documents(tmp_path / "none")


def test_the_interpreters_own_library_is_the_size_that_the_docs_say():
    source = PythonLibrary(0)
    sizes = [Path(source.root, f).stat().st_size for shard in range(source.n_shards) for f in source._files_of(shard)]
    assert 8e6 < sum(sizes) < 20e6
