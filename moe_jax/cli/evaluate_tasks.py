"""`moe-jax evaluate --tasks=…` and `--harness=…`: the scores of a run's newest checkpoint on downstream tasks."""

import argparse
import dataclasses
import importlib.util
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_jax.cli import tables
from moe_jax.errors import UserError
from moe_jax.sweep.evaluation_record import EvaluationRecord
from moe_jax.sweep.run_record import RunRecord
from moe_jax.sweep.rundir import RunDir
from moe_jax.text import fixed, percent

if TYPE_CHECKING:
    from moe_jax.data.vocabularies import TextVocabulary
    from moe_jax.evaluation.loading import Restored

_COLUMNS = {"accuracy": ">accuracy", "accuracy_per_char": ">per character", "accuracy_per_token": ">per token"}


@dataclasses.dataclass(frozen=True)
class _Model:
    """A run's newest checkpoint, open for scoring."""

    folder: RunDir
    run: RunRecord
    scored: "Restored"
    vocabulary: "TextVocabulary"


def evaluate(flags: argparse.Namespace) -> None:
    """Scores the tasks and prints their table. Raises UserError for flags, requests or a run that will not do."""
    if flags.limit is not None and flags.limit < 1:
        raise UserError(f"--limit={flags.limit}: must be above 0")
    if flags.harness is not None or flags.harness_tasks is not None:
        _evaluate_harness(flags)
    else:
        _evaluate_requests(flags)


def _evaluate_requests(flags: argparse.Namespace) -> None:
    """Each task's record is written when it is done. Names and requests are checked before the model is loaded."""
    from moe_jax.evaluation.tasks import catalogue, sources

    if flags.tasks is None:
        raise UserError("--tasks is missing: name the tasks, as --tasks=arc_easy,hellaswag")
    if flags.requests is None:
        raise UserError(f"--requests is missing: name the wheel or folder with the requests; {sources.HOW_TO_GET}")
    source = sources.RequestSource(flags.requests)
    chosen = catalogue.choose(flags.tasks, source.variants)
    sets = [source.read(one.task, one.variant).first(flags.limit) for one in chosen]

    from moe_jax.evaluation.tasks import on_task, scoring

    model = _open(flags)
    scorer, records = scoring.Scorer(model.scored), []
    for one, requests in zip(chosen, sets, strict=True):
        record = on_task.evaluate(
            model.folder.path, model.run, model.scored, scorer, model.vocabulary, one.name, requests
        )
        model.folder.write_evaluation(record)
        records.append(record)
    _show(model, table(records))


def _evaluate_harness(flags: argparse.Namespace) -> None:
    if flags.tasks is not None or flags.requests is not None:
        raise UserError("--harness has tasks of its own; leave out --tasks and --requests, or give them a command each")
    tasks = [name.strip() for name in (flags.harness or "").split(",") if name.strip()]
    if not tasks:
        raise UserError("--harness names no task: name some of lm-evaluation-harness, as --harness=arc_easy,sciq")
    if importlib.util.find_spec("lm_eval") is None:
        raise UserError("--harness needs lm-evaluation-harness: pip install 'moe_jax[harness]'")

    from moe_jax.evaluation import harness
    from moe_jax.evaluation.tasks import scoring

    model = _open(flags)
    scorer = scoring.Scorer(model.scored)
    lm = harness.HarnessModel(scorer, model.vocabulary, model.run.store.end_of_document)
    records = harness.evaluate(lm, model.run, model.scored.step, tasks, flags.harness_tasks, flags.limit)
    for record in records:
        model.folder.write_evaluation(record)
    _show(model, harness_table(records))


def _open(flags: argparse.Namespace) -> _Model:
    """The run's model and vocabulary. Raises UserError."""
    from etils import epath

    from moe_jax.evaluation import loading, run_store
    from moe_jax.evaluation.tasks import dropless
    from moe_jax.training.compile_cache import use_compilation_cache

    use_compilation_cache()
    run = loading.run_of(flags.workdir)
    vocabulary = run_store.vocabulary_of(run, flags.store)
    return _Model(RunDir(epath.Path(flags.workdir)), run, dropless.restore_dropless(flags.workdir), vocabulary)


def _show(model: _Model, shown: tables.Table) -> None:
    print(f"{model.run.name}, step {model.scored.step:,}; {model.folder.path / 'evaluations'}")
    tables.show(shown)


def table(records: Sequence[EvaluationRecord]) -> tables.Table:
    """A row a task: its metrics, each with its standard error, and the share of requests whose context was cut."""
    headings = ["task", "variant", ">shots", ">documents", *_COLUMNS.values(), ">bits/byte", ">cut"]
    rows = []
    for record in records:
        about, shots = record.about, record.about["shots"]
        values = [_with_error(record, metric, 3) for metric in _COLUMNS]
        values.append(_with_error(record, "bits_per_byte", 4))
        counts = ["–" if shots is None else str(shots), f"{about['documents']:,}"]
        rows.append([record.of, about["variant"], *counts, *values, percent(about["cut_share"])])
    return tables.Table(headings, rows, spare=("variant", ">per token", ">shots"))


def harness_table(records: Sequence[EvaluationRecord]) -> tables.Table:
    """A row a metric of each task of the harness."""
    rows = [
        [record.of, metric, _with_error(record, metric, 4)]
        for record in records
        for metric in record.values
        if not metric.endswith("_stderr")
    ]
    return tables.Table(["task", "metric", ">value"], rows)


def _with_error(record: EvaluationRecord, metric: str, digits: int) -> str:
    value, stderr = record.values.get(metric), record.values.get(f"{metric}_stderr")
    return fixed(value, digits) + ("" if stderr is None else f" ± {fixed(stderr, digits)}")
