"""Metrics by hand."""

import math

import numpy as np
import pytest

from moe_jax.evaluation.tasks import metrics
from moe_jax.evaluation.tasks.requests import Document, RequestSet


def task(*documents):
    return RequestSet("t", "v", 0, documents)


def test_metrics_by_hand():
    """Three documents. The first is right raw and per character, the second per token alone, the third (a tie, which
    goes to the first) never."""
    found = metrics.of_task(
        task(
            Document((("c", " ab"), ("c", " abcd")), 0),
            Document((("c", " a"), ("c", " éb")), 1),
            Document((("c", " a"), ("c", " b")), 1),
        ),
        np.array([-1.0, -4.0, -2.0, -5.0, -3.0, -3.0]),
        [1, 1, 1, 4, 2, 2],
    )
    assert found["accuracy"] == pytest.approx(1 / 3)
    assert found["accuracy_per_char"] == pytest.approx(1 / 3)  # −1/2 and −1; −2 and −5/2; −3 and −3
    assert found["accuracy_per_token"] == pytest.approx(2 / 3)  # −1 and −4; −2 and −5/4; −3/2 and −3/2
    bits = [1 / 2, 5 / 3, 3 / 1]  # é has two bytes
    assert found["bits_per_byte"] == pytest.approx(sum(bits) / 3 / math.log(2))
    assert found["bits_per_byte_stderr"] == pytest.approx(np.std(bits, ddof=1) / math.log(2) / math.sqrt(3))
    share = 1 / 3
    assert found["accuracy_stderr"] == pytest.approx(math.sqrt(share * (1 - share) / 2))


def test_answers_alone_have_bits_alone():
    found = metrics.of_task(task(Document((("c", " abcd"),), 0)), np.array([-4 * math.log(2)]), [4])
    assert found == {"bits_per_byte": pytest.approx(1.0)}


def test_same_continuations_differ_by_their_contexts_alone():
    """WinoGrande: the lengths are the same, so all three accuracies are."""
    documents = [Document(((f"{i} he", " left."), (f"{i} she", " left.")), i % 2) for i in range(9)]
    log_likelihood = -np.random.default_rng(0).uniform(1, 5, 18)
    found = metrics.of_task(task(*documents), log_likelihood, [2] * 18)
    right = [ll.argmax() == d.gold for ll, d in zip(log_likelihood.reshape(9, 2), documents, strict=True)]
    assert found["accuracy"] == found["accuracy_per_char"] == found["accuracy_per_token"] == np.mean(right)
