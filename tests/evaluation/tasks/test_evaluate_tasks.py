"""`moe-jax evaluate --tasks`: from a run's folder and a wheel to its evaluations, stopped and started again."""

import json
import shutil

import jax
import pytest

from moe_jax import errors
from moe_jax.cli import command, evaluate
from moe_jax.config import config_file
from moe_jax.evaluation.tasks import dropless, scoring
from moe_jax.sweep import from_config
from moe_jax.sweep.evaluation_record import Kind
from moe_jax.sweep.rundir import RunDir
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import loop
from moe_jax.training.goal import run_goal
from moe_jax.training.options import Options
from tests.data_stores import make_store
from tests.evaluation.tasks.made_requests import lines, made_set, write_wheel

FLAGS = (
    "--config=configs/smoke.py:tiny", "--config.train.tokens=1024", "--config.data.sequence_length=48",
    "--config.eval.sequences=4",
)  # fmt: skip
MADE = made_set(30)
ANSWERS = [json.dumps(json.loads(line) | {"label": ["x"]}) for line in lines(MADE) if json.loads(line)["idx"] == 0]


def trained_on(store, workdir, *flags):
    """The folder of a run."""
    place = Workdir(str(workdir))
    file = config_file.load([*FLAGS, *flags, f"--config.data.store={store}"])
    manifest, runs, store = from_config.enter(file, place, whole_grid=False)
    goal = run_goal(manifest.run(runs[0].name), place, manifest.store)
    loop.train([goal], store, manifest.store, Options(say=lambda sentence: None, devices=jax.devices()[:1]))
    return goal.folder


@pytest.fixture(scope="module")
def trained(words_store, tmp_path_factory):
    return trained_on(words_store, tmp_path_factory.mktemp("tasks"))


@pytest.fixture
def folder(trained, tmp_path):
    """A copy of the run that a test may write into."""
    copy = tmp_path / "sweep" / "runs" / trained.name
    shutil.copytree(trained.path, copy)
    return RunDir(type(trained.path)(copy))


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    sets = {("made", "v"): lines(MADE), ("lambada", "bpb_0shot"): ANSWERS}
    return write_wheel(tmp_path_factory.mktemp("requests") / "r.whl", sets)


def run(folder, wheel, *flags):
    return command.run(evaluate.main, [f"--workdir={folder.path}", f"--requests={wheel}", *flags])


def test_the_verb_writes_a_file_a_task(folder, wheel, capsys):
    assert run(folder, wheel, "--tasks=made,lambada") == errors.DONE
    printed = capsys.readouterr().out
    lambada, made = folder.evaluations()
    assert (made.kind, made.of, made.name, made.step) == (Kind.TASK, "made", folder.name, folder.result().steps)
    accuracies = ("accuracy", "accuracy_per_char", "accuracy_per_token")
    names = {f"{metric}{suffix}" for metric in (*accuracies, "bits_per_byte") for suffix in ("", "_stderr")}
    assert set(made.values) == names and made.columns().keys() == {f"made_{name}" for name in names}
    assert set(lambada.values) == {"bits_per_byte", "bits_per_byte_stderr"}
    assert 2 < lambada.values["bits_per_byte"] < 12
    assert made.about["documents"] == 30 and made.about["requests"] == len(MADE.pairs)
    assert 0 < made.about["cut_share"] < 1 and f"{100 * made.about['cut_share']:.1f}%" in printed
    assert f"{made.values['accuracy']:.3f} ± {made.values['accuracy_stderr']:.3f}" in printed


def test_a_limit_takes_the_first_documents(folder, wheel):
    assert run(folder, wheel, "--tasks=made", "--limit=7") == errors.DONE
    (record,) = folder.evaluations()
    assert record.about["documents"] == 7 and record.about["requests_sha256"] == MADE.first(7).sha256


def test_a_stop_and_a_start_give_the_numbers_of_none(folder, wheel, monkeypatch, capsys):
    monkeypatch.setattr(scoring.Scorer.__init__, "__defaults__", (48,))  # batch_tokens
    assert run(folder, wheel, "--tasks=made") == errors.DONE
    (whole,) = folder.evaluations()
    scores = folder.path / "evaluations" / "task-made.scores.jsonl"
    batches = len(scores.read_text().splitlines()) - 1
    assert batches > 4
    shutil.rmtree(folder.path / "evaluations")

    score, launched = scoring.Scorer.score, []

    def stopped(self, encoded, planned):
        for n, found in enumerate(score(self, encoded, planned)):
            if n == 2:
                raise KeyboardInterrupt
            yield found

    monkeypatch.setattr(scoring.Scorer, "score", stopped)
    assert run(folder, wheel, "--tasks=made") == errors.STOPPED
    assert folder.evaluations() == [] and len(scores.read_text().splitlines()) == 1 + 2

    def counted(self, encoded, planned):
        launched.extend(planned)
        return score(self, encoded, planned)

    monkeypatch.setattr(scoring.Scorer, "score", counted)
    capsys.readouterr()
    assert run(folder, wheel, "--tasks=made") == errors.DONE
    assert folder.evaluations() == [whole] and len(launched) == batches - 2
    assert f"of {len(MADE.pairs)} requests have been scored before" in capsys.readouterr().out
    assert run(folder, wheel, "--tasks=made") == errors.DONE
    assert len(launched) == batches - 2, "all is scored"


def test_scores_of_something_else_are_not_taken(folder, wheel, capsys):
    assert run(folder, wheel, "--tasks=made", "--limit=5") == errors.DONE
    assert run(folder, wheel, "--tasks=made") == errors.DONE
    assert "other requests; they are replaced" in capsys.readouterr().out
    (whole,) = folder.evaluations()
    scores = folder.path / "evaluations" / "task-made.scores.jsonl"
    first, *others = scores.read_text().splitlines()
    for damaged in (
        [json.dumps(json.loads(first) | {"step": 1}), *others],
        [first, "{"],
        [first, json.dumps({"requests": [10**6], "log_likelihood": [-1.0], "greedy": [True]})],
        [first, json.dumps({"requests": [0], "log_likelihood": [float("nan")], "greedy": [True]})],
        [],
    ):
        scores.write_text("\n".join(damaged))
        assert run(folder, wheel, "--tasks=made") == errors.DONE
        assert folder.evaluations() == [whole], damaged
    assert "is damaged, so all requests are scored again" in capsys.readouterr().out


def test_eight_devices_give_the_numbers_of_one(folder, wheel, monkeypatch):
    found, restore = [], dropless.restore_dropless
    for n in (1, 8):
        monkeypatch.setattr(dropless, "restore_dropless", lambda f, n=n: restore(f, jax.devices()[:n]))
        shutil.rmtree(folder.path / "evaluations", ignore_errors=True)
        assert run(folder, wheel, "--tasks=made,lambada") == errors.DONE
        found.append([record.values for record in folder.evaluations()])
    for one, eight in zip(*found, strict=True):
        assert eight == pytest.approx(one, rel=1e-5)


def test_a_sentencepiece_vocabulary_is_the_stores(tmp_path, wheel, capsys):
    make_store(tmp_path / "bpe", vocabulary="bpe:300")
    folder = trained_on(tmp_path / "bpe", tmp_path / "w", "--config.data.vocabulary=bpe:300")
    assert run(folder, wheel, "--tasks=made", "--limit=3") == errors.DONE
    moved = (tmp_path / "bpe").rename(tmp_path / "moved")
    assert run(folder, wheel, "--tasks=made", "--limit=3") == errors.BAD_INPUT
    assert "the file of its vocabulary is missing" in capsys.readouterr().err
    assert run(folder, wheel, "--tasks=made", "--limit=3", f"--store={moved}") == errors.DONE
    model = moved / "vocabulary.model"
    model.write_bytes(model.read_bytes() + b"x")
    assert run(folder, wheel, "--tasks=made", f"--store={moved}") == errors.BAD_INPUT
    assert "is damaged or another vocabulary" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("flags", "words"),
    [
        (["--tasks=mad"], "the nearest are made"),
        (["--limit=3"], "--tasks is missing"),
        (["--tasks=made", "--limit=0"], "must be above 0"),
        (["--tasks=made", "--sequences=3"], "--sequences means nothing for tasks"),
        (["--tasks=made", "--requests=/none.whl"], "no such file or folder"),
        (["--tasks=made", "--harness=sciq"], "has tasks of its own"),
    ],
)
def test_bad_flags_are_one_sentence(trained, wheel, flags, words, capsys):
    assert run(trained, wheel, *flags) == errors.BAD_INPUT
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


def test_bad_runs_are_one_sentence(folder, wheel, tmp_path, capsys):
    assert command.run(evaluate.main, [f"--workdir={folder.path}", "--tasks=made"]) == errors.BAD_INPUT
    assert "--requests is missing" in capsys.readouterr().err
    assert command.run(evaluate.main, [f"--workdir={tmp_path}", f"--requests={wheel}", "--tasks=made"])
    assert "not the folder of a run" in capsys.readouterr().err
    shutil.rmtree(folder.path / "checkpoints")
    assert run(folder, wheel, "--tasks=made") == errors.BAD_INPUT
    assert "has no whole checkpoint" in capsys.readouterr().err


def test_continuations_that_do_not_fit_are_refused(trained, tmp_path, capsys):
    long = lines(made_set(3, longest=200))
    assert run(trained, write_wheel(tmp_path / "w.whl", {("long", "v"): long}), "--tasks=long") == errors.BAD_INPUT
    assert "which do not fit the model's 48 positions" in capsys.readouterr().err
