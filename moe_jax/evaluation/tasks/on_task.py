"""One task from its requests to evaluations/task-NAME.json; what is scored already is not scored again."""

from collections.abc import Callable

import numpy as np
from etils import epath

from moe_jax import progress
from moe_jax.data.vocabularies import TextVocabulary
from moe_jax.evaluation.loading import Restored
from moe_jax.evaluation.tasks import metrics
from moe_jax.evaluation.tasks.encoding import Encoder
from moe_jax.evaluation.tasks.kept_scores import KeptScores
from moe_jax.evaluation.tasks.requests import RequestSet
from moe_jax.evaluation.tasks.scoring import Scorer
from moe_jax.sweep.evaluation_record import EvaluationRecord, Kind
from moe_jax.sweep.run_record import RunRecord


def evaluate(
    folder: epath.Path,
    run: RunRecord,
    scored: Restored,
    scorer: Scorer,
    vocabulary: TextVocabulary,
    name: str,
    requests: RequestSet,
    say: Callable[[str], None] = print,
) -> EvaluationRecord:
    """The record of one task, `name` in results, under the run's model. Raises UserError where a request does not fit
    the model, OSError."""
    encoded = Encoder(vocabulary, run.store.end_of_document, scorer.positions).encode(requests.pairs, name)
    sha256 = requests.sha256
    identity = {"run": run.name, "config_hash": run.config_hash, "step": scored.step, "requests_sha256": sha256}
    path = folder / "evaluations" / f"{Kind.TASK}-{name}.scores.jsonl"
    kept = KeptScores(path, identity, len(encoded), say)
    if kept.done:
        say(f"{name}: {kept.done:,} of {len(encoded):,} requests have been scored before")
    missing = [batch for batch in scorer.plan(encoded) if not kept.has(batch.requests)]
    if missing:
        with progress.stage(name, len(missing), lambda: kept.done, "requests") as advance:
            try:
                for batch, scores in scorer.score(encoded, missing):
                    kept.add(batch.requests, scores)
                    advance()
            finally:
                kept.write()
    cut = float(np.mean([request.cut for request in encoded]))
    tokens = [request.answer for request in encoded]
    return EvaluationRecord(
        name=run.name,
        kind=Kind.TASK,
        of=name,
        step=scored.step,
        tokens=scored.step * run.config.batch_tokens,
        values=metrics.of_task(requests, kept.scores.log_likelihood, tokens),
        about={
            "task": requests.task,
            "variant": requests.variant,
            "shots": requests.shots,
            "documents": len(requests.documents),
            "requests": len(encoded),
            "requests_sha256": sha256,
            "cut_share": cut,
            "dispatch": None if run.config.moe is None else scored.trainer.config.moe.dispatch,
        },
    )
