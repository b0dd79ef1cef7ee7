"""A run's model as a model of lm-evaluation-harness (extra `harness`): its tasks and prompts, our scores.

The harness turns texts into token ids by the rule that tasks/encoding.py states, and each pair of ids is scored as the
requests of our own tasks are.
"""

import contextlib
import difflib
import os
from collections.abc import Iterator, Sequence
from typing import Any

import lm_eval
import numpy as np
from lm_eval.api.model import TemplateLM
from lm_eval.tasks import TaskManager
from lm_eval.utils import get_rolling_token_windows, make_disjoint_window

from moe_jax.data.vocabularies import TextVocabulary
from moe_jax.errors import UserError
from moe_jax.evaluation.tasks.encoding import Encoder
from moe_jax.evaluation.tasks.scoring import Scorer
from moe_jax.sweep.evaluation_record import EvaluationRecord, Kind
from moe_jax.sweep.run_record import RunRecord
from moe_jax.text import number, one_line


class HarnessModel(TemplateLM):
    """What lm_eval.simple_evaluate takes as `model`: log-likelihoods, also of whole texts; it generates nothing."""

    def __init__(self, scorer: Scorer, vocabulary: TextVocabulary, end_of_document: int):
        super().__init__()
        self._scorer, self._vocabulary, self._end_of_document = scorer, vocabulary, end_of_document
        self._encoder = Encoder(vocabulary, end_of_document, scorer.positions)

    @property
    def eot_token_id(self) -> int:
        return self._end_of_document

    @property
    def tokenizer_name(self) -> str:
        return str(self._vocabulary.describe())

    def tok_encode(self, string: str, add_special_tokens: bool | None = None, **_: Any) -> list[int]:
        """Token ids of the text, without special tokens."""
        return self._vocabulary.encode(string).tolist()

    def _loglikelihood_tokens(
        self, requests: Sequence[tuple[Any, list[int], list[int]]], **_: Any
    ) -> list[tuple[float, bool]]:
        pairs = ((np.array(context, np.int32), np.array(answer, np.int32)) for _, context, answer in requests)
        scores = self._scorer.score_all(self._encoder.fit(pairs, "the harness's tasks"))
        return list(zip(scores.log_likelihood.tolist(), scores.greedy.tolist(), strict=True))

    def loglikelihood_rolling(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[float]:
        """Log-likelihoods of whole texts, by windows of the model's positions side by side."""
        windows, owners = [], []
        for owner, request in enumerate(requests):
            ids = self.tok_encode(request.args[0])
            rolling = get_rolling_token_windows(ids, self.prefix_token_id, self._scorer.positions, context_len=1)
            found = [("", *make_disjoint_window(window)) for window in rolling]
            windows += found
            owners += [owner] * len(found)
        sums = np.zeros(len(requests))
        if windows:
            np.add.at(sums, owners, [score for score, _ in self._loglikelihood_tokens(windows)])
        return sums.tolist()

    def generate_until(self, requests: Sequence[Any], disable_tqdm: bool = False) -> list[str]:
        """Refuses: raises UserError."""
        raise UserError("--harness: one of these tasks wants generated text; only log-likelihood tasks can be scored")


class _Tasks(TaskManager):
    """The harness's tasks. Raises UserError for a task whose files or data cannot be read: whatever it raises."""

    def __init__(self, folder: str | None):
        with _told():
            super().__init__(include_path=folder)

    def load(self, *given: Any, **named: Any) -> Any:
        with _told():
            return super().load(*given, **named)


@contextlib.contextmanager
def _told() -> Iterator[None]:
    try:
        yield
    except Exception as e:
        why = (str(e).splitlines() or [""])[0]
        raise UserError(f"--harness: lm_eval cannot load its tasks: {type(e).__name__}: {one_line(why)}") from e


def evaluate(
    model: HarnessModel, run: RunRecord, step: int, tasks: Sequence[str], folder: str | None, limit: int | None
) -> list[EvaluationRecord]:
    """The records of tasks of the harness, with its names of values (`acc`, `acc_stderr`, …); `folder` has task files
    beside its own. Raises UserError for a task that it does not know."""
    if folder is not None and not os.path.isdir(folder):
        raise UserError(f"--harness_tasks={folder}: there is no such folder")
    manager = _Tasks(folder)
    known = set(manager.all_tasks)
    if unknown := [task for task in tasks if task not in known]:
        near = difflib.get_close_matches(unknown[0], known, 3)
        what = f"the nearest are {', '.join(near)}" if near else "name a folder with task files by --harness_tasks"
        raise UserError(f"--harness={unknown[0]}: lm_eval {lm_eval.__version__} has no such task; {what}")
    found = lm_eval.simple_evaluate(
        model=model, tasks=list(tasks), task_manager=manager, limit=limit, log_samples=False
    )
    return [_record(run, step, task, found) for task in found["results"]]


def _record(run: RunRecord, step: int, task: str, found: dict[str, Any]) -> EvaluationRecord:
    results = {key: value for key, value in found["results"][task].items() if number(value) is not None}
    metrics = {key.removesuffix(",none").replace(",", "_"): value for key, value in results.items() if "," in key}
    samples = found.get("n-samples", {}).get(task, {})
    return EvaluationRecord(
        name=run.name,
        kind=Kind.TASK,
        of=column_name(f"lm_eval_{task}"),
        step=step,
        tokens=step * run.config.batch_tokens,
        values={column_name(metric): float(value) for metric, value in metrics.items()},
        about={
            "harness": f"lm_eval {lm_eval.__version__}",
            "task": task,
            "version": found.get("versions", {}).get(task),
            "shots": found.get("n-shot", {}).get(task),
            "documents": samples.get("effective"),
        },
    )


def column_name(name: str) -> str:
    """A name of the harness as a part of a column: small letters, digits and _, at most 64."""
    return "".join(c if c.isascii() and c.isalnum() else "_" for c in name.lower())[:64]
