"""Numbers of a task from the scores of its requests; each has the standard error of its mean over documents.

accuracy             share of documents whose right choice has the largest log-likelihood; a tie goes to the first
accuracy_per_char    the same of log-likelihood ÷ characters of the continuation, without its leading spaces
accuracy_per_token   the same of log-likelihood ÷ tokens of the continuation
bits_per_byte        mean over documents of −log₂ likelihood of the right continuation ÷ its bytes in UTF-8, without
                     its leading spaces
"""

import itertools
import math
from collections.abc import Sequence

import numpy as np

from moe_jax.evaluation.tasks.requests import RequestSet


def of_task(requests: RequestSet, log_likelihood: np.ndarray, tokens: Sequence[int]) -> dict[str, float]:
    """The metrics by name, and `…_stderr` of each where there are two documents or more. `log_likelihood` in nats and
    `tokens` are of the requests in their order. A set without choices has bits_per_byte alone."""
    answers = [continuation.lstrip() for _, continuation in requests.pairs]
    characters = np.array([len(answer) for answer in answers])
    n_bytes = np.array([len(answer.encode()) for answer in answers])
    first = np.cumsum([0, *(len(document.requests) for document in requests.documents)])
    right = np.array([begin + doc.gold for begin, doc in zip(first[:-1], requests.documents, strict=True)])
    values = {}
    if requests.has_choices:
        by_length = {"": 1, "_per_char": characters, "_per_token": np.asarray(tokens)}
        for suffix, length in by_length.items():
            chosen = [begin + score.argmax() for begin, score in _documents(log_likelihood / length, first)]
            values[f"accuracy{suffix}"] = (np.array(chosen) == right).astype(np.float64)
    values["bits_per_byte"] = -log_likelihood[right] / math.log(2) / n_bytes[right]
    return {name: value for metric, by_document in values.items() for name, value in _mean(metric, by_document)}


def _documents(score: np.ndarray, first: np.ndarray) -> list[tuple[int, np.ndarray]]:
    """(number of the first request, scores) of each document."""
    return [(begin, score[begin:end]) for begin, end in itertools.pairwise(first)]


def _mean(metric: str, by_document: np.ndarray) -> list[tuple[str, float]]:
    found = [(metric, float(by_document.mean()))]
    if len(by_document) > 1:
        stderr = by_document.std(ddof=1) / math.sqrt(len(by_document))
        found.append((f"{metric}_stderr", float(stderr)))
    return found
