import errno
import json
import os
import pathlib
import subprocess
import sys
import time

import pytest
from etils import epath

from moe_jax import files
from moe_jax.cli import command, prepare
from moe_jax.data import store
from moe_jax.data.prepare import build, workers
from moe_jax.data.store import open_store
from moe_jax.errors import BAD_INPUT, DONE, FAILED, WorkFailed
from tests.data_stores import COMMAND, SOURCE, Killed, contents, killed, make_store


def run(capsys, *flags):
    """Exit code, standard output and the sentences on standard error of `moe-jax prepare`."""
    code = command.run(prepare.main, flags)
    out, err = capsys.readouterr()
    return code, out, err


def test_prepares_the_embedded_corpus_and_then_has_nothing_to_do(tmp_path, capsys):
    flags = [f"--store={tmp_path / 's'}", "--workers=1"]
    code, out, err = run(capsys, *flags)
    assert (code, err) == (DONE, "")
    info = open_store(str(tmp_path / "s")).info
    assert f"{info.tokens['train']:,} train tokens" in out
    assert info.source["name"] == "python_stdlib"
    assert info.source["python"] == ".".join(map(str, sys.version_info[:3]))
    assert info.tokens["train"] == info.bytes["train"] + info.documents["train"]
    assert not (tmp_path / "s" / store.UNFINISHED_NAME).exists()
    before = {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")}
    code, out, err = run(capsys, *flags)
    assert (code, err) == (DONE, "")
    assert "is finished" in out
    assert {p: p.stat().st_mtime_ns for p in tmp_path.rglob("*")} == before


def test_a_finished_store_is_never_overwritten_with_another(tmp_path, capsys):
    path = tmp_path / "s"
    assert run(capsys, f"--store={path}", "--workers=1")[0] == DONE
    before = contents(path)
    for flag, field in [("--vocabulary=bpe:300", "vocabulary"), ("--seed=1", "seed")]:
        code, _, err = run(capsys, f"--store={path}", flag)
        assert code == BAD_INPUT
        assert f"was made with {field}=" in err
    assert contents(path) == before


@pytest.mark.parametrize("vocabulary", ["byte", "bpe:300"])
def test_the_number_of_workers_changes_nothing(tmp_path, monkeypatch, vocabulary):
    make_store(tmp_path / "one", SOURCE, vocabulary, workers=1)
    make_store(tmp_path / "three", SOURCE, vocabulary, workers=3)
    assert contents(tmp_path / "one") == contents(tmp_path / "three")


def test_imports_neither_tensorflow_nor_jax_for_the_embedded_corpus(tmp_path):
    code = (
        "import sys; from moe_jax.cli import command, prepare\n"
        f"code = command.run(prepare.main, ['--store={tmp_path / 's'}', '--workers=1'])\n"
        "print(code, *(m for m in ('tensorflow', 'seqio', 'jax') if m in sys.modules))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    assert out.splitlines()[-1] == "0"


def test_plain_lines_where_there_is_no_terminal(tmp_path, capsys):
    _, out, _ = run(capsys, f"--store={tmp_path / 's'}", "--workers=1")
    assert "tokenise source shards: 16/16" in out
    assert "tokens/s" in out
    assert "\x1b" not in out


def test_the_config_says_what_to_prepare_and_flags_say_otherwise(tmp_path, capsys, monkeypatch):
    asked = []
    monkeypatch.setattr(build, "existing", lambda *args: asked.append(args) or FINISHED)
    monkeypatch.setattr(build, "clean_up", lambda store: None)
    common = pathlib.Path(__file__).parents[3] / "configs" / "common.py"
    config = [f"--config={common}", "--config.data.store=elsewhere", "--config.data.vocabulary=bpe:512"]
    assert run(capsys, *config)[0] == DONE
    assert run(capsys, *config, "--store=here", "--seed=4")[0] == DONE
    assert run(capsys)[0] == DONE
    assert asked == [
        ("elsewhere", build.Settings("python_stdlib", "bpe:512", 0), None),
        ("here", build.Settings("python_stdlib", "bpe:512", 4), None),
        ("stores/python_stdlib_byte", build.Settings("python_stdlib", "byte", 0), None),
    ]


def test_a_vocabulary_larger_than_the_models_is_refused_before_any_work(tmp_path, capsys):
    common = pathlib.Path(__file__).parents[3] / "configs" / "common.py"
    flags = [f"--config={common}", f"--store={tmp_path / 's'}", "--workers=1"]
    for vocabulary, size in (("byte", 259), ("bpe:300", 300)):
        asked = f"--config.data.vocabulary={vocabulary}"
        code, _, err = run(capsys, *flags, asked, f"--config.model.vocab_size={size - 1}")
        assert code == BAD_INPUT
        assert f"config.model.vocab_size = {size - 1}: vocabulary {vocabulary} has {size} token ids" in err
        assert err.count("\n") == 1
        assert not (tmp_path / "s").exists()
    assert run(capsys, *flags, "--config.model.vocab_size=50257")[0] == DONE  # fewer token ids are fine
    assert run(capsys, *flags, "--config.model.vocab_size=259")[0] == DONE
    code, _, err = run(capsys, *flags, "--config.model.vocab_size=258")  # of a finished store, too
    assert code == BAD_INPUT and "has 259 token ids" in err


FINISHED = store.StoreInfo(
    *({split: 1 for split in store.SPLITS} for _ in range(4)), 1, {}, 3, 1, {}, {}, {"vocabulary": "byte"}, "0" * 64
)  # fmt: skip


BAD_FLAGS = {
    "--workers=0": "at least 1",
    "--workers=many": "invalid int",
    "--seed=99999999999999999999999": "between -2^31 and 2^31",
    "--mixture=files:": "names no folder",
    "--mixture=c4": "names no folder",
    "--vocabulary=bpe:3": "bpe:SIZE",
    "--vocabulary=words": "name byte, bpe:SIZE",
    "--vocabulary=task": "python_stdlib gives texts",
    "--vocabulary=none.model": "none.model",
    "--colour=red": "there is no flag --colour=red",
}


@pytest.mark.parametrize("flag", BAD_FLAGS)
def test_bad_flags_are_one_sentence_and_leave_nothing_behind(tmp_path, flag):
    path = tmp_path / "s"
    done = subprocess.run([*COMMAND, f"--store={path}", flag], capture_output=True, text=True)
    assert done.returncode == BAD_INPUT
    assert BAD_FLAGS[flag] in done.stderr
    assert "Traceback" not in done.stderr
    assert not path.exists()


@pytest.mark.parametrize("files_there", [[], ["a.py"]])
def test_an_empty_corpus_is_one_sentence(tmp_path, capsys, monkeypatch, files_there):
    (tmp_path / "lib").mkdir()
    for name in files_there:
        (tmp_path / "lib" / name).write_text("")
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "lib"))
    code, _, err = run(capsys, f"--store={tmp_path / 's'}")
    assert code == BAD_INPUT
    assert "is too small" in err
    assert err.count("\n") == 1


def test_an_unreadable_corpus_is_one_sentence(tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("sysconfig.get_path", lambda name: str(tmp_path / "lib"))
    code, _, err = run(capsys, f"--store={tmp_path / 's'}")
    assert code == BAD_INPUT
    assert "cannot be read" in err


def test_a_folder_that_cannot_be_written_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    code, _, err = run(capsys, f"--store={tmp_path / 'file' / 's'}")
    assert code == FAILED
    assert "cannot be written" in err


def test_a_folder_with_other_things_is_left_alone(tmp_path, capsys):
    (tmp_path / "thesis.tex").write_text("mine")
    code, _, err = run(capsys, f"--store={tmp_path}")
    assert code == BAD_INPUT
    assert "holds other things" in err
    assert contents(tmp_path) == {"thesis.tex": b"mine"}


def test_a_store_among_its_source_is_not_read_as_text(tmp_path, capsys, monkeypatch):
    for i in range(300):
        (tmp_path / f"{i}.txt").write_text(f"text {i}")
    flags = ["--mixture=files:" + str(tmp_path), f"--store={tmp_path / 's'}", "--workers=1"]
    with monkeypatch.context() as patch:
        patch.setattr(build, "write_info", killed)
        with pytest.raises(Killed):
            command.run(prepare.main, flags)
    assert list((tmp_path / "s" / store.UNFINISHED_NAME).rglob("*.json"))
    assert run(capsys, *flags)[0] == DONE
    info = open_store(str(tmp_path / "s")).info
    assert (sum(info.documents.values()), info.skipped) == (300, {})
    code, _, err = run(capsys, *flags[:1], f"--store={tmp_path}")
    assert code == BAD_INPUT and "holds other things" in err


def test_two_at_once_do_not_get_in_each_others_way(tmp_path, capsys):
    path = tmp_path / "s"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(build, "_assemble", killed)
        with pytest.raises(Killed):
            command.run(prepare.main, [f"--store={path}", "--workers=1"])
    with files.locked(epath.Path(path / store.UNFINISHED_NAME / "lock")) as alone:
        assert alone
        code, _, err = run(capsys, f"--store={path}")
    assert (code, "another process is preparing" in err) == (FAILED, True)
    assert run(capsys, f"--store={path}", "--workers=1")[0] == DONE


FULL_DISK = """mount -t tmpfs -o size={size} tmpfs {folder} || exit 77
{python} -m moe_jax prepare --store={folder}/s --workers=1
code=$?
echo left: $(find {folder}/s -name '.*' -type f | wc -l)
exit $code"""


@pytest.mark.parametrize("size", ["5m", "25m"])  # too small for the pieces (24 MB), then for the arrays (as much again)
def test_a_full_disk_is_one_sentence(tmp_path, size):
    script = FULL_DISK.format(size=size, folder=tmp_path, python=sys.executable)
    done = subprocess.run(["unshare", "-rm", "sh", "-c", script], capture_output=True, text=True)
    if done.returncode == 77 or "unshare" in done.stderr:
        pytest.skip("no file system of a given size can be mounted here")
    assert done.returncode == FAILED
    assert "the disk is full" in done.stderr
    assert "Traceback" not in done.stderr
    assert "left: 0" in done.stdout


def _fail(argument):
    if argument == 3:
        raise OSError(errno.ENOSPC, "full", "there")
    return argument


def _die(argument):
    os._exit(9)


def test_what_a_worker_raises_is_raised_here():
    with pytest.raises(OSError) as e:
        list(workers.map_unordered(_fail, range(6), 2))
    assert (e.value.errno, e.value.filename) == (errno.ENOSPC, "there")


def test_a_worker_that_dies_is_one_sentence():
    with pytest.raises(WorkFailed, match="a worker process died"):
        list(workers.map_unordered(_die, range(6), 2))


def test_workers_end_when_their_parent_is_killed(tmp_path):
    code = (
        "import os, time\nfrom moe_jax.data.prepare import workers\n"
        f"open({str(tmp_path / 'main')!r}, 'w').write(str(os.getpid()))\n"
        "for _ in workers.map_unordered(time.sleep, [60, 61], 2): pass"
    )
    script = tmp_path / "main.py"
    script.write_text("if __name__ == '__main__':\n" + "".join(f"    {line}\n" for line in code.split("\n")))
    parent = subprocess.Popen([sys.executable, str(script)])
    children_file = f"/proc/{parent.pid}/task/{parent.pid}/children"
    deadline = time.time() + 30
    while time.time() < deadline and len(children := _children(children_file)) < 3:  # two and the resource tracker
        time.sleep(0.05)
    time.sleep(0.5)
    parent.kill()
    parent.wait()
    while time.time() < deadline and any(map(_alive, children)):
        time.sleep(0.05)
    assert len(children) == 3
    assert not any(map(_alive, children))


def _children(file):
    try:
        with open(file) as f:
            return [int(pid) for pid in f.read().split()]
    except FileNotFoundError:
        pytest.skip("this system does not list the children of a process")


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as f:
            return f.read().split(") ")[-1][0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_store_json_is_readable_by_people(tmp_path):
    make_store(tmp_path / "s")
    text = (tmp_path / "s" / "store.json").read_text()
    fields = json.loads(text)
    assert len(text.splitlines()) == len(fields) + 2
