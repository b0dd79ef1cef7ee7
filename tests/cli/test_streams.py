"""Closed and narrow output, and signals while modules are imported: no traceback, and the exit code of the verb."""

import os
import subprocess
import sys

import pytest

from moe_jax import errors
from tests import synthetic_sweep as synthetic
from tests.conftest import ROOT, child_environment

SIGNALLED = """
import os, signal, sys
from moe_jax.cli import main
class Finder:
    def find_spec(self, name, *_):
        if name == "etils":
            os.kill(os.getpid(), signal.{signal})
sys.meta_path.insert(0, Finder())
sys.argv = ["moe-jax", "status", "--workdir=nothing"]
main.main()
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory):
    work, planned = synthetic.make(tmp_path_factory.mktemp("streams") / "w", [{}])
    synthetic.finish(work, planned[0])
    return work.path


def shell(command, **more):
    return subprocess.run(
        ["sh", "-c", command], cwd=ROOT, capture_output=True, env=child_environment() | more, timeout=60
    )


def test_an_encoding_that_lacks_characters(swept):
    done = shell(f"{sys.executable} -m moe_jax status --workdir='{swept}'", PYTHONIOENCODING="ascii")
    assert done.returncode == errors.DONE and b"1 done" in done.stdout and not done.stderr


@pytest.mark.parametrize(
    ("closed", "workdir", "code"), [(">&-", True, errors.DONE), (">&- 2>&-", False, errors.BAD_INPUT)]
)
def test_closed_output(swept, closed, workdir, code):
    done = shell(f"{sys.executable} -m moe_jax status --workdir='{swept if workdir else 'nothing'}' {closed}")
    assert done.returncode == code and not done.stdout and not done.stderr


@pytest.mark.parametrize("unbuffered", ["", "1"])
@pytest.mark.parametrize(
    ("args", "stream", "code"),
    [
        (["--help"], "stdout", errors.DONE),
        (["status", "--help"], "stdout", errors.DONE),
        (["status", "--workdir={swept}"], "stdout", errors.DONE),
        (["status", "--workdir=nothing"], "stderr", errors.BAD_INPUT),
    ],
)
def test_a_reader_that_has_gone(swept, args, stream, code, unbuffered):
    """As in `moe-jax status | head -1`: also what Python writes only at its end."""
    reader, writer = os.pipe()
    os.close(reader)
    other = {"stdout": "stderr", "stderr": "stdout"}[stream]
    done = subprocess.run(
        [sys.executable, "-m", "moe_jax", *(arg.format(swept=swept) for arg in args)], cwd=ROOT, timeout=60,
        env=child_environment(PYTHONUNBUFFERED=unbuffered), **{stream: writer, other: subprocess.PIPE},
    )  # fmt: skip
    os.close(writer)
    assert done.returncode == code and not getattr(done, other)


@pytest.mark.skipif(not os.path.exists("/dev/full"), reason="Linux has it")
def test_output_that_cannot_be_written():
    done = shell(f"{sys.executable} -m moe_jax --help >/dev/full", PYTHONUNBUFFERED="")
    assert done.returncode == errors.FAILED and done.stderr.startswith(b"moe-jax: the disk is full")


@pytest.mark.parametrize("signal", ["SIGINT", "SIGTERM"])
def test_a_signal_while_modules_are_imported(signal):
    done = subprocess.run(
        [sys.executable, "-c", SIGNALLED.format(signal=signal)], cwd=ROOT, capture_output=True, text=True, timeout=60,
        env=child_environment(),
    )  # fmt: skip
    assert (
        done.returncode == errors.STOPPED and done.stderr == "moe-jax: stopped; the same command goes on where it was\n"
    )


DROPPED = """
import gc, os, signal, sys
from moe_jax.cli import command
def main(argv):
    def callback(phase, info):
        gc.callbacks.remove(callback)
        os.kill(os.getpid(), signal.SIGTERM)
        for _ in range(1000): pass  # the handler runs here, and Python drops what it raises
    gc.callbacks.append(callback)
    gc.collect()
    signal.pause()
command.end(main, [])
"""


def test_an_interrupt_that_python_drops_comes_again():
    """JAX has a callback of the garbage collector's; a SIGTERM inside it was a text on standard error, and no stop."""
    done = subprocess.run(
        [sys.executable, "-c", DROPPED], cwd=ROOT, capture_output=True, env=child_environment(), timeout=60
    )
    assert done.returncode == errors.STOPPED and b"Exception ignored" not in done.stderr
