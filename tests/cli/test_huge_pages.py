"""A training starts again with huge pages asked for, where that changes something."""

import os
import subprocess
import sys

import pytest

from moe_jax.cli import command, huge_pages, main


@pytest.fixture
def started(monkeypatch, tmp_path):
    """What os.execv was called with, where the kernel gives huge pages to those who ask."""
    calls = []
    (tmp_path / "enabled").write_text("always [madvise] never\n")
    monkeypatch.setattr(huge_pages, "SETTING", tmp_path / "enabled")
    monkeypatch.setattr(os, "execv", lambda *call: calls.append(call))
    monkeypatch.setenv("GLIBC_TUNABLES", "")  # so that it is put back
    monkeypatch.delenv("GLIBC_TUNABLES")
    monkeypatch.setattr(sys, "orig_argv", ["python3", "-m", "moe_jax", "train", "--workdir=a b"])
    return calls


def test_the_same_command_starts_again_once(started):
    huge_pages.start_again()
    assert started == [(sys.executable, [sys.executable, "-m", "moe_jax", "train", "--workdir=a b"])]
    assert os.environ["GLIBC_TUNABLES"] == "glibc.malloc.hugetlb=1"
    huge_pages.start_again()
    assert len(started) == 1


def test_it_goes_on_where_it_cannot_start_again(started, monkeypatch):
    def fails(*_):
        raise OSError("Argument list too long")

    monkeypatch.setattr(os, "execv", fails)
    huge_pages.start_again()


@pytest.mark.parametrize("setting", ["[always] madvise never\n", "always madvise [never]\n", None])
def test_nothing_happens_where_it_would_change_nothing(started, setting):
    if setting is None:
        huge_pages.SETTING.unlink()
    else:
        huge_pages.SETTING.write_text(setting)
    huge_pages.start_again()
    assert not started and "GLIBC_TUNABLES" not in os.environ


def test_tunables_of_the_user_stay(started):
    os.environ["GLIBC_TUNABLES"] = "glibc.malloc.check=1"
    huge_pages.start_again()
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
