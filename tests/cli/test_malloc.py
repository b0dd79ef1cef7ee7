"""A training on a CPU starts again with the malloc settings that it needs, where that changes something."""

import os
import subprocess
import sys

import pytest

from moe_jax.cli import command, main, malloc


@pytest.fixture
def started(monkeypatch):
    """What os.execv was called with, in a process of a training on a CPU under glibc."""
    calls = []
    monkeypatch.setattr(malloc.platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(os, "execv", lambda *call: calls.append(call))
    monkeypatch.setenv("JAX_PLATFORMS", "cpu")
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that it is put back
    monkeypatch.delenv("GLIBC_TUNABLES")
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "moe_jax", "train", "--workdir=a b"])
    return calls


def test_the_same_command_starts_again_once(started):
    malloc.start_again()
    assert started == [(sys.executable, [sys.executable, "-m", "moe_jax", "train", "--workdir=a b"])]
    assert os.environ["GLIBC_TUNABLES"].startswith("glibc.malloc.hugetlb=1:glibc.malloc.")
    malloc.start_again()
    assert len(started) == 1


def test_it_goes_on_where_it_cannot_start_again(started, monkeypatch):
    def fails(*_):
        raise OSError("Argument list too long")

    monkeypatch.setattr(os, "execv", fails)
    malloc.start_again()


@pytest.mark.parametrize("platforms", ["tpu", "cuda,cpu"])
def test_a_training_on_an_accelerator_does_not_start_again(started, monkeypatch, platforms):
    monkeypatch.setenv("JAX_PLATFORMS", platforms)
    malloc.start_again()
    assert not started and "GLIBC_TUNABLES" not in os.environ


@pytest.mark.parametrize("device", ["accel0", "nvidia3", None])
def test_accelerators_are_seen_by_their_files(started, monkeypatch, tmp_path, device):
    monkeypatch.delenv("JAX_PLATFORMS")
    monkeypatch.setattr(malloc, "_ACCELERATORS", [f"{tmp_path}/accel*", f"{tmp_path}/nvidia[0-9]*"])
    (tmp_path / (device or "nvidiactl")).touch()
    malloc.start_again()
    assert len(started) == (device is None)


def test_another_libc_has_no_such_settings(started, monkeypatch):
    monkeypatch.setattr(malloc.platform, "libc_ver", lambda: ("", ""))  # macOS, musl
    malloc.start_again()
    assert not started


def test_tunables_of_the_user_stay(started):
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.check=1"
    malloc.start_again()
    assert not started


@pytest.mark.parametrize("verb", ["train", "status"])
def test_only_a_training_starts_again(started, monkeypatch, verb):
    monkeypatch.setattr(command, "end", lambda main: None)
    monkeypatch.setattr(sys, "argv", ["moe-jax", verb, "--workdir=a b"])
    main.main()
    assert len(started) == (verb == "train")


def test_train_is_the_same_command_with_and_without(tmp_path):
    """Exit code and sentence of a missing flag come from the process that started again."""
    command = [sys.executable, "-m", "moe_jax", "train"]
    environment = {k: v for k, v in os.environ.items() if k != "GLIBC_TUNABLES"}
    said = [
        subprocess.run(command, capture_output=True, text=True, cwd=tmp_path, env=environment | more)
        for more in ({}, {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=0"})
    ]
    assert said[0].returncode == said[1].returncode == 2
    assert said[0].stderr == said[1].stderr and "--workdir" in said[0].stderr


@pytest.mark.skipif(malloc.platform.libc_ver()[0] != "glibc", reason="settings of glibc")
def test_freed_memory_is_kept():
    """A block that is freed and allocated again has the pages that it had: no fault for each of them."""
    program = """
import ctypes, resource
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]

def fill():
    block = libc.malloc(2**28)
    ctypes.memset(block, 1, 2**28)
    libc.free(block)

fill()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
fill()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    faults = [
        int(subprocess.run([sys.executable, "-c", program], capture_output=True, check=True, env=environment).stdout)
        for environment in ({}, {"GLIBC_TUNABLES": malloc.VALUE})
    ]
    assert faults[0] > 100 and faults[1] < 20
