"""`moe-jax evaluate --tasks=…`: the scores of a run's newest checkpoint on downstream tasks."""

import argparse
from collections.abc import Sequence

from moe_jax.cli import tables
from moe_jax.errors import UserError
from moe_jax.sweep.evaluation_record import EvaluationRecord
from moe_jax.text import fixed, percent

_COLUMNS = {"accuracy": ">accuracy", "accuracy_per_char": ">per character", "accuracy_per_token": ">per token"}


def evaluate(flags: argparse.Namespace) -> None:
    """Scores the tasks one after the other and prints their table; each one's record is written when it is done.

    Every name, every request and the vocabulary are checked before the model is loaded."""
    from moe_jax.evaluation.tasks import catalogue, sources

    if flags.tasks is None:
        raise UserError("--tasks is missing: name the tasks, as --tasks=arc_easy,hellaswag")
    if flags.requests is None:
        raise UserError(f"--requests is missing: name the wheel or folder with the requests; {sources.HOW_TO_GET}")
    if flags.limit is not None and flags.limit < 1:
        raise UserError(f"--limit={flags.limit}: must be above 0")
    source = sources.RequestSource(flags.requests)
    chosen = catalogue.choose(flags.tasks, source.variants)
    sets = [source.read(one.task, one.variant).first(flags.limit) for one in chosen]

    from etils import epath

    from moe_jax.evaluation import loading, vocabulary
    from moe_jax.evaluation.tasks import dropless, on_task, scoring
    from moe_jax.sweep.rundir import RunDir
    from moe_jax.training.compile_cache import use_compilation_cache

    use_compilation_cache()
    run = loading.run_of(flags.workdir)
    words = vocabulary.of_run(run, flags.vocabulary)
    scored = dropless.restore_dropless(flags.workdir)
    scorer = scoring.Scorer(scored)
    folder, records = RunDir(epath.Path(flags.workdir)), []
    for one, requests in zip(chosen, sets, strict=True):
        record = on_task.evaluate(folder.path, run, scored, scorer, words, one.name, requests)
        folder.write_evaluation(record)
        records.append(record)
    print(f"{run.name}, step {scored.step:,}; {folder.path / 'evaluations'}")
    tables.show(table(records))


def table(records: Sequence[EvaluationRecord]) -> tables.Table:
    """A row a task: its metrics, each with its standard error, and the share of contexts that were cut."""
    headings = ["task", "variant", ">shots", ">documents", *_COLUMNS.values(), ">bits/byte", ">cut"]
    rows = []
    for record in records:
        about, shots = record.about, record.about["shots"]
        values = [_with_error(record, metric, 3) for metric in _COLUMNS]
        values.append(_with_error(record, "bits_per_byte", 4))
        counts = ["–" if shots is None else str(shots), f"{about['documents']:,}"]
        rows.append([record.of, about["variant"], *counts, *values, percent(about["cut_share"])])
    return tables.Table(headings, rows, spare=("variant", ">per token", ">shots"))


def _with_error(record: EvaluationRecord, metric: str, digits: int) -> str:
    value, stderr = record.values.get(metric), record.values.get(f"{metric}_stderr")
    return fixed(value, digits) + ("" if stderr is None else f" ± {fixed(stderr, digits)}")
