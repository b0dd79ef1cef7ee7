"""The frame around the verbs: help that is instant, sentences, exit codes."""

import errno
import os
import subprocess
import sys

import pytest

from moe_jax import errors
from moe_jax.cli import command, plan, train
from moe_jax.cli import main as main_lib
from moe_jax.sweep.manifest import StoreIdentity
from tests import synthetic_sweep as synthetic
from tests.conftest import ROOT, child_environment

HEAVY = ("jax", "numpy", "tensorflow", "seqio", "pandas", "matplotlib", "rich", "ml_collections", "absl")


def test_help_imports_nothing_heavy():
    code = f"""
import sys
sys.argv = ["moe-jax", "--help"]
from moe_jax.cli import main as cli
try:
    cli.main()
except SystemExit as e:
    assert e.code == 0
print([m for m in {HEAVY!r} if m in sys.modules])
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[]"
    assert all(verb in done.stdout for verb in main_lib.VERBS)


@pytest.mark.parametrize("name", main_lib.VERBS)
def test_every_verb_has_help(verb, name):
    done = verb(name, "--help")
    assert done.returncode == 0 and f"usage: moe-jax {name}" in done.stdout


def test_the_package_runs_as_a_module_too():
    command_line = [sys.executable, "-m", "moe_jax", "train", "--help"]
    done = subprocess.run(command_line, cwd=ROOT, env=child_environment(), capture_output=True, text=True)
    assert done.returncode == 0 and "--workdir" in done.stdout and "--config.FIELD" in done.stdout


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ((), "usage"),
        (("fly",), "there is no verb 'fly'"),
        (("train", "--workdir=w"), "give a config file"),
        (("train", "--config=configs/common.py"), "--workdir"),
        (("train", "--config=configs/common.py", "--workdir=w", "--nonsense=1"), "--nonsense=1"),
        (
            ("train", "--config=configs/common.py", "--workdir=w", "--config.moe.granularty=4"),
            "did you mean config.moe.granularity?",
        ),
        (
            ("train", "--config=configs/common.py", "--workdir=w", "--config.data.store=nowhere"),
            "moe-jax prepare --config=configs/common.py",
        ),
        (("train", "--run=a", "--workdir=w"), "holds no sweep"),
        (
            ("sweep", "--config=configs/smoke.py:huge", "--workdir=w"),
            "the argument 'huge' is not known; it can be tiny",
        ),
        (("sweep", "--config=configs/smoke.py", "--workdir=w", "--jobs=0"), "--jobs=0: must be at least 1"),
    ],
)
def test_bad_flags_get_a_sentence_and_code_2(verb, args, words):
    done = verb(*args)
    assert done.returncode == errors.BAD_INPUT
    assert words in done.stdout + done.stderr and "Traceback" not in done.stderr


def test_a_finished_run_started_again_needs_no_store(tmp_path, capsys):
    store = StoreIdentity(str(tmp_path / "gone"), "5e" * 32, 256)
    work, (run, other) = synthetic.make(tmp_path / "w", [{}, {"seed": 1}], store)
    config = ["--config=configs/common.py", f"--config.data.store={store.path}"]
    synthetic.finish(work, run)
    for which in ([f"--run={run.name}"], config):
        assert train.main([f"--workdir={work.path}", *which]) == errors.DONE
        assert f"{run.name}: done" in capsys.readouterr().out
    for which in ([f"--run={other.name}"], [*config, "--config.seed=1"], [*config, "--config.optim.learning_rate=1"]):
        with pytest.raises(errors.UserError, match="there is no token store"):
            train.main([f"--workdir={work.path}", *which])


@pytest.mark.parametrize(("field", "made"), [("mixture", "python_stdlib"), ("vocabulary", "byte")])
def test_a_store_of_another_mixture_or_vocabulary_is_refused(byte_store, tmp_path, field, made):
    flags = ["--config=configs/smoke.py:tiny", f"--config.data.store={byte_store}", f"--config.data.{field}=other"]
    for main in (lambda argv: train.main([*argv, f"--workdir={tmp_path}"]), plan.main):
        with pytest.raises(errors.UserError, match=f"{byte_store} was made with {field}={made}, and .* is other; give"):
            main(flags)
    assert not list(tmp_path.iterdir())


def test_a_store_named_alone_brings_its_mixture_and_vocabulary(byte_store, capsys):
    """Those of the config are C4 and GPT-2's."""
    flags = ["--config=configs/krajewski2024.py:table4", f"--config.data.store={byte_store}"]
    assert plan.main([*flags, "--config.data.repeat=True", "--config.eval.sequences=512"]) == errors.DONE
    assert "259 token ids" in capsys.readouterr().out
    with pytest.raises(errors.UserError, match="was made with mixture=python_stdlib, and"):
        plan.main([*flags, "--config.data.mixture=c4"])


@pytest.mark.parametrize("late", ["SIGTERM", "SIGINT"])
def test_a_signal_after_its_end_does_not_change_how_a_verb_ended(late):
    """Sent while Python throws its modules away, where handlers are gone already."""
    program = f"""
import os, signal
from moe_jax.cli import command

class Last:
    def __del__(self, kill=os.kill, pid=os.getpid(), number=signal.{late}):
        kill(pid, number)
        print("sent", flush=True)

signal.last = Last()
command.end(lambda argv: 3, [])
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert (done.returncode, done.stdout, done.stderr) == (3, "sent\n", "")


def test_sigterm_inside_an_exec_ends_a_module_with_75(tmp_path):
    """Where `python -m` would say 130: importing runs much in exec(), each dataclass for one."""
    (tmp_path / "verb.py").write_text("""
from moe_jax.cli import command

command.end(lambda argv: exec("import signal; signal.raise_signal(signal.SIGTERM)"), [])
""")
    environment = child_environment(PYTHONPATH=f"{tmp_path}{os.pathsep}{ROOT}")
    done = subprocess.run([sys.executable, "-m", "verb"], cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert done.returncode == errors.STOPPED and done.stderr.startswith("moe-jax: stopped"), done.stderr


def test_how_a_verb_ends_is_its_exit_code(capsys):
    def raising(e):
        def main(argv):
            raise e

        return command.run(main, [])

    assert command.run(lambda argv: None, []) == errors.DONE
    assert raising(errors.UserError("bad")) == errors.BAD_INPUT
    assert raising(errors.WorkFailed("failed")) == errors.FAILED
    assert raising(errors.Stopped("stopped")) == errors.STOPPED
    assert raising(KeyboardInterrupt()) == errors.STOPPED
    assert raising(OSError(errno.ENOSPC, "No space left", "w/x")) == errors.FAILED
    assert raising(OSError(errno.EROFS, "Read-only", "w/x")) == errors.FAILED
    said = capsys.readouterr().err
    assert "the disk is full at w/x" in said and "read-only at w/x" in said and "Traceback" not in said
    assert raising(IsADirectoryError(errno.EISDIR, "Is a directory", "w/sweep.json")) == errors.BAD_INPUT
    assert raising(ImportError("Please install gcsfs to access Google Storage")) == errors.BAD_INPUT
    unreachable = type("ClientError", (Exception,), {"__module__": "aiohttp.client_exceptions"})
    assert raising(unreachable("no such host")) == errors.FAILED
    assert raising(FileNotFoundError("https://x.org/upload/storage/v1/b/nobucket/o?name=x")) == errors.FAILED
    said = capsys.readouterr().err
    assert "has no https://x.org/upload/storage/v1/b/nobucket/o?name=x; check that the bucket exists" in said
    assert "w/sweep.json: is a folder" in said and "moe_jax[gcs]" in said and "no such host" in said
    interrupted = ImportError("initialization failed")  # as C extensions have it
    interrupted.__cause__ = KeyboardInterrupt()
    assert raising(interrupted) == errors.STOPPED and "stopped" in capsys.readouterr().err
    with pytest.raises(ImportError):
        raising(ImportError("initialization failed"))
    with pytest.raises(ZeroDivisionError):  # a bug is not dressed up as the user's mistake
        raising(ZeroDivisionError())
