"""A slip of the hand is answered by one sentence that names it, what was probably meant, and exit code 2."""

import re

import pytest

import moe_jax
from moe_jax import errors
from moe_jax.cli import command
from moe_jax.cli import main as main_lib

CONFIG = "--config=configs/common.py"


@pytest.mark.parametrize(
    ("args", "words"),
    [
        ("trian", "there is no verb 'trian', did you mean train?"),
        ("--verison", "there is no verb '--verison'"),
        (f"train {CONFIG} --wrokdir=w", "there is no flag --wrokdir=w, did you mean --workdir?"),
        ("train --cofig=x.py --workdir=w", "there is no flag --cofig=x.py, did you mean --config?"),
        ("status --workdir=w --config=x.py", "there is no flag --config=x.py; "),
        (f"train {CONFIG} --workdir=w --config.seed 3", "its value follows an equals sign: --config.seed=3"),
        (f"train {CONFIG} --workdir", "argument --workdir: expected one argument"),
        ("train --config=configs --workdir=w", "is a folder; give a file of it: configs/"),
        (f"train {CONFIG} --workdir=gs:bucket/x", "--workdir=gs:bucket/x: a bucket is written gs://BUCKET/PATH: gs://bucket/x"),
        (f"train {CONFIG} --workdir=gs:/bucket/x", "a bucket is written gs://BUCKET/PATH: gs://bucket/x"),
        (f"sweep {CONFIG} --workdir=GS://bucket/x", "a bucket is written gs://BUCKET/PATH: gs://bucket/x"),
        (f"train {CONFIG} --workdir=gcs://bucket/x", "a bucket is written gs://BUCKET/PATH: gs://bucket/x"),
        (f"train {CONFIG} --workdir=gs://", "--workdir=gs://: names no bucket"),
        (f"train {CONFIG} --workdir=s3://bucket/x", "local folders and gs:// only, not s3:"),
        (f"plan {CONFIG} --config.data.store=s3://bucket/x", "config.data.store=s3://bucket/x"),
        (f"plan {CONFIG} --config.eval.stores=code=gs:x/y", "config.eval.stores: code=gs:x/y"),
        (f"plan {CONFIG} --config.train.init_from=gs:x/y", "config.train.init_from=gs:x/y"),
        (f"plan {CONFIG} --config.data.cache=file:///x", "config.data.cache=file:///x"),
    ],
)  # fmt: skip
def test_a_slip_gets_its_sentence(args, words, capsys):
    assert command.run(main_lib.verb, args.split()) == errors.BAD_INPUT
    said = capsys.readouterr()
    assert words in said.err and said.err.count("\n") == 1 and not said.out


@pytest.mark.parametrize(
    "path", ["gs://my-bucket/a", "gs://my-bucket", "runs/gs:x", "krajewski2024:E=64, Table 5", "C:x"]
)
def test_what_is_no_slip_passes(path):
    moe_jax.files.refuse_foreign(path, "--x")


def test_a_text_that_looks_like_a_bucket_is_a_text(tmp_path, capsys):
    assert command.run(main_lib.verb, ["generate", f"--workdir={tmp_path}/no", "--prompt=file: x"]) == errors.BAD_INPUT
    assert "gs://" not in capsys.readouterr().err


def test_the_version(capsys):
    assert command.run(main_lib.verb, ["--version"]) == errors.DONE
    assert re.fullmatch(
        rf"moe_jax {re.escape(moe_jax.__version__)}( \(commit [0-9a-f]+\+?\))?\n", capsys.readouterr().out
    )


def test_a_folder_that_nobody_can_make_and_a_model_that_nothing_holds(byte_store, tmp_path, capsys):
    def train(workdir, *more):
        flags = [CONFIG, f"--config.data.store={byte_store}", *more]
        return command.run(main_lib.verb, ["train", *flags, f"--workdir={workdir}"])

    assert train("/proc/x") == errors.BAD_INPUT
    assert "--workdir=/proc/x: no folder can be made there" in capsys.readouterr().err
    assert train(tmp_path, "--config.model.d_model=1_000_000") == errors.BAD_INPUT
    assert "parameters and their gradients take" in capsys.readouterr().err
