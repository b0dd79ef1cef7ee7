"""The verb `generate`: text on standard output, what is said of it on standard error."""

import io
import sys

import pytest

from moe_jax import errors
from moe_jax.cli import command, generate
from tests.data_stores import make_store
from tests.evaluation.trained_run import train_run


@pytest.fixture(scope="module")
def trained(byte_store, tmp_path_factory):
    return str(train_run(tmp_path_factory.mktemp("trained"), byte_store).path)


def run(trained, capsys, *flags):
    code = command.run(generate.main, [f"--workdir={trained}", *flags])
    return code, *capsys.readouterr()


def test_the_text_continues_the_prompt_and_a_seed_repeats_it(trained, capsys):
    flags = ["--prompt=def f(x", "--tokens=12", "--samples=2"]
    code, text, said = run(trained, capsys, *flags)
    assert code == errors.DONE and text.count("def f(x") == 2
    assert "[sample 1 of 2: " in said and "as many as --tokens allows" in said
    assert run(trained, capsys, *flags) == (code, text, said)
    assert run(trained, capsys, *flags, "--seed=1")[1] != text
    greedy = run(trained, capsys, *flags, "--greedy")[1].split("def f(x")
    assert greedy[1] == greedy[2] == run(trained, capsys, *flags, "--temperature=0")[1].split("def f(x")[1]


def test_a_long_text_says_that_the_window_slides(trained, capsys):
    _, _, said = run(trained, capsys, "--prompt=import os\n", "--tokens=40")
    assert "the model has 32 positions" in said or "ended the document" in said
    assert "positions" not in run(trained, capsys, "--prompt=a", "--tokens=3")[2]


def test_the_prompt_comes_from_standard_input(trained, capsys, monkeypatch):
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO("größe".encode()), "ascii"))
    code, text, _ = run(trained, capsys, "--prompt=-", "--tokens=3")
    assert code == errors.DONE and text.startswith("größe")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"\xff"), "utf-8"))
    code, _, said = run(trained, capsys, "--prompt=-")
    assert code == errors.BAD_INPUT and "is no UTF-8 text" in said


def test_control_characters_do_not_reach_the_terminal(trained, capsys):
    _, text, _ = run(trained, capsys, "--prompt=a", "--tokens=200", "--temperature=50", "--top_p=1")
    assert "\ufffd" in text and not any((ord(c) < 32 and c not in "\n\t") or 127 <= ord(c) < 160 for c in text)


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        ([f"--prompt={'x' * 33}"], "has 33 tokens, more than the 32 positions"),
        (["--prompt=x", "--samples=0"], "--samples=0: must be above 0"),
        (["--prompt=x", "--tokens=-1"], "--tokens=-1: must be above 0"),
        (["--prompt=x", "--top_p=2"], "--top_p=2"),
        (["--prompt=\udcff"], "is no UTF-8 text"),
        (["--prompt=x", "--store=/nowhere"], "there is no token store at /nowhere"),
    ],
)
def test_bad_input_is_one_sentence(trained, capsys, flags, words):
    code, _, said = run(trained, capsys, *flags)
    assert code == errors.BAD_INPUT and words in said and said.count("\n") == 1


def test_another_vocabulary_and_no_run_are_refused(trained, capsys, tmp_path):
    make_store(tmp_path / "bpe", vocabulary="bpe:300")
    assert "another vocabulary" in run(trained, capsys, "--prompt=x", f"--store={tmp_path / 'bpe'}")[2]
    assert "not the folder of a run" in run(str(tmp_path), capsys, "--prompt=x")[2]
