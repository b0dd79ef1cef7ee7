"""A law declared in a user's own file: fitted, predicted and planned by the verbs, and refused in one sentence."""

import hashlib
import json

import pytest

from moe_jax import errors, laws
from moe_jax.cli import collect, command, fit, optimum, predict, report
from moe_jax.laws import user_file
from tests import synthetic_sweep
from tests.fit_verb import runs

LAW = """
from moe_jax.laws import declare, exponent, positive, power

@declare(
    formula="c + a * N^-alpha + b * D^-beta", source="this test", columns={"N": "n_total_nonemb", "D": "tokens"},
    coefficients={
        "c": positive(0.05, 3), "a": positive(1, 1e5), "alpha": exponent(), "b": positive(1, 1e6), "beta": exponent(),
    },
)
def my_law(N, D, c, a, alpha, b, beta):
    return c + a * power(N, -alpha) + b * power(D, -beta)
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """A folder with my_law.py and results.csv, and no forms that other tests declared."""
    monkeypatch.setattr(laws.forms, "FORMS", dict(laws.FORMS))
    monkeypatch.chdir(tmp_path)
    (tmp_path / "my_law.py").write_text(LAW)
    table = runs()
    table[table.granularity == 4].to_csv(tmp_path / "results.csv", index=False)
    return tmp_path


def forget():
    """As in a new process: the file has not been run."""
    laws.forms.FORMS.pop("my_law", None)


def call(verb, *flags):
    return command.run(verb.main, list(flags))


def fit_own(*flags):
    quick = ["--workdir", ".", "--bootstrap", "5", "--starts", "16"]
    return call(fit, *quick, "--law", "my_law.py:my_law", *flags)


def test_the_verbs_take_a_law_of_ones_own(own, capsys):
    assert fit_own() == errors.DONE
    said = capsys.readouterr().out
    assert "my_law: L = c + a * N^-alpha + b * D^-beta" in said and "published: none" in said
    stored = json.loads((own / "law.json").read_text())
    sha256 = hashlib.sha256(LAW.encode()).hexdigest()
    assert stored["law"] == "my_law" and stored["declared_in"] == {"file": "my_law.py", "sha256": sha256}
    assert (laws.load("law.json").loss_at({"N": 1e9, "D": 2e10}) > 1).all()

    forget()
    assert call(optimum, "--law", "my_law.py:law.json", "--flops", "1e20") == errors.DONE
    assert (own / "optimum.csv").exists()
    forget()
    grid = ["--config", "c.py", "--config.model.vocab_size=256"]
    (own / "c.py").write_text("from configs.smoke import get_config, get_grid\n")
    assert call(predict, "--law", "my_law.py:law.json", *grid) == errors.DONE
    assert (own / "prediction.csv").exists()


PUBLISHED = 'published={"here": {"c": 0.5, "a": 18.0, "alpha": 0.12, "b": 30.0, "beta": 0.15}},\n)\ndef my_law'


@pytest.mark.parametrize("published", ["published={},\n)\ndef my_law", PUBLISHED], ids=["empty", "a set"])
def test_published_coefficients_of_ones_own_law_may_be_none(own, capsys, published):
    (own / "my_law.py").write_text(LAW.replace(")\ndef my_law", published))
    assert fit_own("--profile", "alpha", "--leverage", "2", "--compare", "my_law.py:my_law", "--figures", "f") == 0
    forget()
    assert call(optimum, "--law", "my_law.py:law.json", "--flops", "1e20") == errors.DONE
    forget()
    capsys.readouterr()
    asked = call(optimum, "--law", "my_law.py:my_law", "--flops", "1e20")
    if "here" in published:
        assert asked == errors.DONE and "my_law: L = c" in capsys.readouterr().out
    else:
        assert asked == errors.BAD_INPUT
        assert "my_law is declared without published coefficients; name a law.json" in capsys.readouterr().err


def test_the_report_takes_a_law_of_ones_own(own, capsys):
    work, planned = synthetic_sweep.make(own / "w")
    for run in planned:
        synthetic_sweep.finish(work, run)
    assert call(collect, "--workdir", "w") == errors.DONE
    flags = ["--workdir", "w", "--bootstrap", "5", "--starts", "16"]
    assert call(fit, *flags, "--law", "my_law.py:my_law") == errors.DONE
    forget()
    capsys.readouterr()
    assert call(report, "--workdir", "w") == errors.FAILED
    assert "name the file as well: --law my_law.py:" in capsys.readouterr().err
    assert call(report, "--workdir", "w", "--law", "my_law.py:w/law.json") == errors.DONE
    assert "my_law" in (own / "w" / "report.html").read_text()
    assert call(predict, "--workdir", "w", "--law", "my_law.py:w/law.json") == errors.DONE
    (own / "w" / "law.json").rename(own / "elsewhere.json")
    (own / "w" / "law.bootstrap.csv").rename(own / "elsewhere.bootstrap.csv")
    assert call(report, "--workdir", "w", "--law", "my_law.py:elsewhere.json") == errors.DONE
    for wrong in ("w/law.json", "my_law.py:my_law", "krajewski2024"):
        assert call(report, "--workdir", "w", "--law", wrong) == errors.BAD_INPUT
        assert "must be a law.json that `moe-jax fit` wrote" in capsys.readouterr().err


def test_a_law_json_never_makes_a_file_run(own, capsys):
    assert fit_own() == errors.DONE
    forget()
    for verb, flags in ((optimum, ["--flops", "1e20"]), (predict, ["--config", "c.py"])):
        assert call(verb, "--law", "law.json", *flags) == errors.BAD_INPUT
        said = capsys.readouterr().err
        assert "was fitted with the law 'my_law' of my_law.py (SHA-256 " in said
        assert "name the file as well: --law my_law.py:law.json" in said
    assert "my_law" not in laws.forms.FORMS


def test_a_file_that_changed_since_the_fit_is_refused(own, capsys):
    assert fit_own() == errors.DONE
    (own / "my_law.py").write_text(LAW.replace("a * power(N, -alpha)", "a * power(N, -2 * alpha)"))
    assert call(optimum, "--law", "my_law.py:law.json", "--flops", "1e20") == errors.BAD_INPUT
    assert "my_law.py has changed since law.json was fitted with it" in capsys.readouterr().err
    assert fit_own() == errors.DONE  # another file is another request
    assert "shown again" not in capsys.readouterr().out
    assert fit_own() == errors.DONE
    assert "shown again" in capsys.readouterr().out


def test_a_file_is_run_once(own):
    first = user_file.find_form("my_law.py:my_law")
    assert user_file.find_form("my_law.py:my_law") is first


@pytest.mark.parametrize(
    ("content", "name", "sentence"),
    [
        (LAW, "other", "my_law.py declares no law 'other'; it declares my_law"),
        (LAW, "krajewski2024", "my_law.py declares no law 'krajewski2024'; it declares my_law"),
        ("x = 1\n", "my_law", "my_law.py: declares no law; put @laws.declare(…) above its formula"),
        ("x = \n", "my_law", "my_law.py: cannot be read: SyntaxError"),
        ("1 / 0\n", "my_law", "my_law.py: cannot be read: ZeroDivisionError"),
        (LAW.replace("def my_law(N, ", "def my_law("), "my_law", "my_law is a function of ['D', 'c'"),
        (LAW.replace("my_law(", "chinchilla("), "chinchilla", "there is a law 'chinchilla' already"),
        (None, "my_law", "there is no file my_law.py"),
    ],
)
def test_a_file_without_the_law_is_refused(own, capsys, content, name, sentence):
    before = dict(laws.forms.FORMS)
    (own / "my_law.py").unlink()
    if content is not None:
        (own / "my_law.py").write_text(content)
    assert call(fit, "--workdir", ".", "--law", f"my_law.py:{name}") == errors.BAD_INPUT
    said = capsys.readouterr().err
    assert sentence in said and said.count("\n") == 1
    assert {k: v for k, v in laws.forms.FORMS.items() if k != "my_law"} == before
