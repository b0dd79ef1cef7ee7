"""eval.stores: losses on other held-out parts at the end of a run, as files, columns and in the report."""

import dataclasses
import re

import pytest

from moe_jax.cli import collect, command, sweep, train
from moe_jax.config import config_file, fields
from moe_jax.config.identity import config_hash
from moe_jax.data.store import open_store
from moe_jax.errors import BAD_INPUT, DONE, UserError
from moe_jax.evaluation import on_store
from moe_jax.sweep import results
from moe_jax.sweep.workdir import Workdir
from tests.data_stores import Texts, make_store, words
from tests.models import config
from tests.pages import read_page

TINY = ["--config=configs/smoke.py:tiny", "--config.train.tokens=1024"]


@pytest.fixture(scope="module")
def stores(tmp_path_factory):
    """Three stores of one vocabulary: what is trained on, a large one, and one with few held-out windows."""
    folder = tmp_path_factory.mktemp("stores")
    make_store(folder / "own", Texts(tuple(words(s, 30) for s in range(12))))
    make_store(folder / "code", Texts(tuple(words(100 + s, 10) for s in range(12))))
    make_store(folder / "few", Texts((words(7, 3),)))
    return folder


@pytest.fixture(scope="module")
def trained(stores, tmp_path_factory):
    workdir = tmp_path_factory.mktemp("w")
    assert command.run(train.main, [*flags_of(stores), f"--workdir={workdir}"]) == DONE
    return Workdir(str(workdir))


def flags_of(stores, more="code,few"):
    named = ",".join(f"{name}={stores}/{name}" for name in more.split(",") if name)
    return [*TINY, f"--config.data.store={stores}/own", f"--config.eval.stores={named}"]


def test_each_store_has_a_file_and_two_columns(trained, stores):
    (run,) = trained.manifest().runs
    folder = trained.run_dir(run.name)
    code, few = folder.evaluations()
    assert [path.name for path in folder.evaluation_paths()] == ["store-code.json", "store-few.json"]
    assert code.about["sequences"] == 16 and 0 < few.about["sequences"] < 16  # as many as it holds
    assert code.about["sha256"] == open_store(f"{stores}/code").info.sha256
    assert code.step == few.step == folder.result().steps
    assert collect.main(["--workdir", str(trained.path)]) == DONE
    header = (trained.path / "results.csv").read_text().splitlines()[0].split(",")
    more = [f"{metric}_{of}" for metric in ("bits_per_byte", "eval_loss") for of in ("code", "few")]
    assert header == [*results.COLUMNS, *more]
    (row,) = results.read_csv(trained.path / "results.csv")
    assert row["eval_loss_code"] == code.values["eval_loss"] != row["eval_loss"]
    assert row["bits_per_byte_few"] == few.values["bits_per_byte"]


def test_the_verb_gives_what_the_run_gave(trained, stores):
    (run,) = trained.manifest().runs
    folder = trained.run_dir(run.name)
    for wanted in folder.evaluations():
        found = on_store.evaluate_run(str(folder.path), f"{stores}/{wanted.of}")
        assert found.values == pytest.approx(wanted.values, rel=1e-6)
        assert dataclasses.replace(found, values=wanted.values) == wanted


def test_the_report_shows_every_store(trained):
    assert collect.main(["--workdir", str(trained.path)]) == DONE
    text = read_page(trained).text
    (row,) = results.read_csv(trained.path / "results.csv")
    assert "Losses on other stores" in text and "code: nats/token" in text
    for column, digits in (("eval_loss_code", 4), ("bits_per_byte_few", 3)):
        assert f"{row[column]:.{digits}f}" in text


def test_stores_are_no_part_of_the_hash():
    with_stores = config("eval.stores=code=a/b")
    assert with_stores.eval.stores == ("code=a/b",)
    assert config_hash(with_stores, "a", 259) == config_hash(config(), "a", 259)
    assert fields.from_dict(fields.to_dict(with_stores)) == with_stores


def test_stores_can_be_a_tuple_or_one_text():
    for text in ("code=a/b,wiki=gs://c/d=e", "('code=a/b', 'wiki=gs://c/d=e')"):
        assert config(f"eval.stores={text}").eval.stores == ("code=a/b", "wiki=gs://c/d=e")
    assert config("eval.stores=()").eval.stores == ()


@pytest.mark.parametrize(
    ("stores", "words"),
    [
        ("code", "must be NAME=FOLDER"),
        ("code=", "must be NAME=FOLDER"),
        ("Code=a", "lower-case letters, digits and _"),
        ("a b=c", "lower-case letters, digits and _"),
        ("capacity=a", "eval_loss_capacity is another column"),
        ("a=b,a=c", "the name a is given twice"),
        ("3", "must be texts"),
    ],
)
def test_a_bad_entry_is_refused(stores, words):
    with pytest.raises(UserError, match=r"^config\.eval\.stores = .*" + words):
        config_file.load([*TINY, f"--config.eval.stores={stores}"]).config  # noqa: B018 (it is checked when asked for)


@pytest.mark.parametrize("verb", [train, sweep])
def test_a_store_that_cannot_be_used_is_one_sentence_before_training(stores, tmp_path, capsys, verb):
    make_store(tmp_path / "bpe", vocabulary="bpe:300")
    for named, sentence in [
        (f"x={tmp_path}/none", "config.eval.stores: x: there is no token store at"),
        (f"x={tmp_path}/bpe", "config.eval.stores: x: .*bpe has another vocabulary"),
    ]:
        flags = [*TINY[:1], f"--config.data.store={stores}/own", f"--config.eval.stores={named}"]
        flags += [f"--workdir={tmp_path}/w"]
        assert command.run(verb.main, flags) == BAD_INPUT
        said = capsys.readouterr().err
        assert len(said.splitlines()) == 1
        assert re.search(sentence, said)
        assert not (tmp_path / "w" / "runs").exists()
