"""Scores equal those of a plain model, one request at a time, whatever the order, the batches and the mesh."""

import dataclasses

import jax
import numpy as np
import pytest

from moe_jax.data.vocabularies import ByteVocabulary
from moe_jax.errors import UserError
from moe_jax.evaluation.loading import Restored
from moe_jax.evaluation.tasks import dropless
from moe_jax.evaluation.tasks.encoding import Encoded, Encoder
from moe_jax.evaluation.tasks.scoring import Scorer
from tests.evaluation.tasks.made_requests import made_set
from tests.models import EXPERT_CHOICE, config, trainer

SIZE, POSITIONS = 259, 48
GIVEN = ("model.vocab_size=259", f"data.sequence_length={POSITIONS}", "moe.capacity_factor=0.5")
VARIANTS = {
    "token choice": (),
    "dense": ("moe=None",),
    "the other fields": (
        "model.positions=rope", "model.activation=swiglu", "moe.batch_prioritised=True", "data.mask_documents=True",
        "moe.bias_update_rate=0.1", "moe.group_sequences=8", "moe.shared_experts=1",
    ),
}  # fmt: skip


def scored(*overrides, **mesh):
    """An untrained run."""
    c = config(*GIVEN, *overrides)
    made = trainer(dropless.dropless(c), vocab_size=SIZE, **mesh)
    return Restored(made, made.init(3), 0)


def requests(documents=10) -> list[Encoded]:
    return Encoder(ByteVocabulary(), ByteVocabulary.end_of_document, POSITIONS).encode(made_set(documents).pairs, "t")


def logits_of(model, tokens_1xS):
    hidden_1xSxd, _ = model(tokens_1xS)
    return model.logits(hidden_1xSxd)


def oracle(overrides, encoded):
    """(log-likelihood, whether greedy) of each request by itself: every expert on every token, whole logits."""
    c = config(*GIVEN, *overrides)
    if c.moe is not None:
        c = dataclasses.replace(c, moe=dataclasses.replace(dropless.dropless(c).moe, dispatch="dense"))
        c = dataclasses.replace(c, moe=dataclasses.replace(c.moe, capacity_factor=float(c.moe.n_experts)))
    made = trainer(c, vocab_size=SIZE)
    weights = trainer(config(*GIVEN, *overrides), vocab_size=SIZE).init(3).weights
    logits = jax.jit(lambda weights, tokens_1xS: logits_of(made.model(weights), tokens_1xS))
    found = []
    for request in encoded:
        logits_SxV = np.asarray(logits(weights, request.tokens[None, :-1])[0], np.float64)[-request.answer :]
        answer = request.tokens[-request.answer :]
        log_sum = np.log(np.exp(logits_SxV - logits_SxV.max(-1, keepdims=True)).sum(-1)) + logits_SxV.max(-1)
        log_likelihood = logits_SxV[np.arange(len(answer)), answer] - log_sum
        found.append((log_likelihood.sum(), bool((logits_SxV.argmax(-1) == answer).all())))
    return map(np.array, zip(*found, strict=True))


@pytest.mark.parametrize("overrides", VARIANTS.values(), ids=VARIANTS)
def test_scores_equal_one_request_at_a_time(overrides):
    encoded = requests(3)  # each of its length: a compile
    log_likelihood, greedy = oracle(overrides, encoded)
    found = Scorer(scored(*overrides), batch_tokens=256).score_all(encoded)
    assert found.log_likelihood == pytest.approx(log_likelihood, rel=1e-5)
    assert np.array_equal(found.greedy, greedy)
    assert len(set(found.log_likelihood.round(4))) > len(encoded) // 2


def test_greedy_continuations_are_known():
    """A continuation made of the most likely tokens is one; with another last token it is none."""
    model = scored()
    tokens = ByteVocabulary().encode("abc").tolist()
    logits = jax.jit(lambda weights, tokens_1xS: logits_of(model.trainer.model(weights), tokens_1xS))
    for n in range(len(tokens), 7):
        padded = np.array([tokens + [0] * (7 - n)], np.int32)
        tokens.append(int(logits(model.state.weights, padded)[0, n - 1].argmax()))
    other = [*tokens[:-1], (tokens[-1] + 1) % SIZE]
    encoded = [Encoded(np.array(t, np.int32), 4, False) for t in (tokens, other)]
    assert Scorer(model).score_all(encoded).greedy.tolist() == [True, False]


def test_order_and_batches_change_nothing():
    encoded, model = requests(), scored()
    wanted = Scorer(model).score_all(encoded).log_likelihood
    order = np.random.default_rng(0).permutation(len(encoded))
    for batch_tokens in (64, 300):
        found = Scorer(model, batch_tokens).score_all([encoded[i] for i in order]).log_likelihood
        assert found == pytest.approx(wanted[order], rel=1e-5)


@pytest.mark.parametrize("mesh", [{"data": 8}, {"data": 2, "expert": 4}])
def test_any_mesh_gives_the_same_scores(mesh):
    encoded = requests()
    wanted = Scorer(scored()).score_all(encoded)
    found = Scorer(scored(**mesh)).score_all(encoded)
    assert found.log_likelihood == pytest.approx(wanted.log_likelihood, rel=1e-5)
    assert np.array_equal(found.greedy, wanted.greedy)


def test_expert_choice_is_refused():
    with pytest.raises(UserError, match="its router is expert_choice"):
        dropless.check_independent("n1", config(*EXPERT_CHOICE))
