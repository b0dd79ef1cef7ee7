"""A changed field of a sealed file is refused, and `reseal` accepts it where it is meant."""

import json

import pytest

from moe_jax import errors
from moe_jax.cli import collect, command, optimum, reseal
from tests import synthetic_sweep as synthetic
from tests.fit_verb import call as call_fit
from tests.fit_verb import runs


@pytest.fixture
def swept(tmp_path):
    work, (run,) = synthetic.make(tmp_path / "w", [{}])
    return work, synthetic.finish(work, run)


def edit(path, **fields):
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_a_changed_loss_is_refused_until_it_is_sealed_again(swept, capsys):
    work, folder = swept
    flags = [f"--workdir={work.path}"]
    edit(folder.result_path, eval_loss=2.5)
    assert command.run(collect.main, flags) == errors.FAILED
    assert f"moe-jax reseal {folder.result_path}" in capsys.readouterr().out
    assert command.run(reseal.main, [str(folder.result_path)]) == errors.DONE
    assert command.run(collect.main, flags) == errors.DONE
    assert folder.result().eval_loss == 2.5
    assert command.run(reseal.main, [str(folder.result_path)]) == errors.DONE
    assert "its seal is right" in capsys.readouterr().out


def test_a_changed_manifest_is_refused(swept, capsys):
    work, _ = swept
    edit(work.path / "sweep.json", config_flags="--config=another.py")
    assert command.run(collect.main, [f"--workdir={work.path}"]) == errors.BAD_INPUT
    assert "moe-jax reseal" in capsys.readouterr().err


def test_a_changed_coefficient_is_refused(tmp_path, capsys):
    call_fit(tmp_path, runs())
    path = tmp_path / "law.json"
    edit(path, coefficients=json.loads(path.read_text())["coefficients"] | {"alpha": 0.5})
    assert command.run(optimum.main, ["--law", str(path), "--flops", "1e20"]) == errors.BAD_INPUT
    assert "its fields do not give" in capsys.readouterr().err


def test_a_law_without_its_samples_is_refused(tmp_path, capsys):
    """Its intervals would be missing in silence."""
    call_fit(tmp_path, runs())
    samples = tmp_path / "law.bootstrap.csv"
    if not samples.exists():
        pytest.fail("the fit wrote no samples")
    samples.unlink()
    assert command.run(optimum.main, ["--law", str(tmp_path / "law.json"), "--flops", "1e20"]) == errors.BAD_INPUT
    assert "law.bootstrap.csv is not there" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("content", "words"), [(None, "is not there"), ("{}", "has no seal"), ("[", "is damaged (not JSON")]
)
def test_what_cannot_be_sealed_again(tmp_path, capsys, content, words):
    path = tmp_path / "x.json"
    if content is not None:
        path.write_text(content)
    assert command.run(reseal.main, [str(path)]) == errors.BAD_INPUT
    assert words in capsys.readouterr().err
