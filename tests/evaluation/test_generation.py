"""Generated tokens are those of the plain forward pass, and sampling is what it says."""

import dataclasses

import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.evaluation.generation import Generator, Sampling, choose, nucleus
from moe_jax.evaluation.loading import Restored
from tests.models import END_OF_DOCUMENT, EXPERT_CHOICE, VOCABULARY, config, trainer

PROMPT = [5, 17, 3]
GREEDY = Sampling(tokens=6, temperature=0, top_p=1, seed=0)


def restored(*overrides, **mesh):
    """A model with its first parameters; the override `dense` leaves its experts out."""
    c = config("moe.dispatch=dropless", *(o for o in overrides if o != "dense"))
    t = trainer(dataclasses.replace(c, moe=None) if "dense" in overrides else c, **mesh)
    return Restored(t, t.init(0), 0)


def generator(*overrides, **mesh):
    return Generator(restored(*overrides, **mesh), VOCABULARY, END_OF_DOCUMENT)


@pytest.fixture(scope="module")
def small():
    return generator()


@pytest.mark.parametrize("overrides", [(), ("model.positions=rope",), ("data.mask_documents=True",), ("dense",)])
def test_greedy_is_the_argmax_of_the_plain_forward_pass(overrides):
    run = restored(*overrides)
    model = run.trainer.model(run.state.weights)
    found = list(Generator(run, VOCABULARY, END_OF_DOCUMENT).continuation(PROMPT, GREEDY))
    assert len(found) == 6 or found[-1] == END_OF_DOCUMENT
    tokens = list(PROMPT)
    for token in found:
        x_1xSxd, _ = model(np.array([tokens], np.int32))
        assert token == int(model.logits(x_1xSxd)[0, -1].argmax())
        tokens.append(token)


def test_padding_to_the_right_changes_nothing(small, monkeypatch):
    before = small.logits(PROMPT)
    monkeypatch.setattr(small, "end_of_document", 9)  # what the window is filled up with
    np.testing.assert_allclose(small.logits(PROMPT), before, rtol=1e-6, atol=1e-7)


def test_any_mesh_gives_the_same_logits(small):
    for mesh in ({"data": 2, "expert": 4}, {"data": 8}):
        np.testing.assert_allclose(generator(**mesh).logits(PROMPT), small.logits(PROMPT), rtol=1e-5, atol=1e-6)


def test_a_window_slides_over_a_long_text(small):
    tokens = np.random.default_rng(0).integers(1, VOCABULARY, 40).tolist()
    assert small.positions == 16
    np.testing.assert_array_equal(small.logits(tokens), small.logits(tokens[-16:]))
    assert not np.allclose(small.logits(tokens), small.logits(tokens[-15:]))
    drawn = list(small.continuation(PROMPT, Sampling(30, 1.0, 1.0, 0)))
    assert len(drawn) == 30 or drawn[-1] == END_OF_DOCUMENT


def test_ids_without_text_are_never_drawn():
    run = restored()
    few = Generator(run, 20, END_OF_DOCUMENT)
    assert len(few.logits(PROMPT)) == 20
    assert max(few.continuation(PROMPT, Sampling(12, 5.0, 1.0, 0))) < 20


def test_the_end_of_a_document_ends_the_text(small, monkeypatch):
    wanted = iter([4, 8, END_OF_DOCUMENT, 2])
    monkeypatch.setattr(small, "logits", lambda tokens: np.eye(VOCABULARY)[next(wanted)])
    assert list(small.continuation(PROMPT, GREEDY)) == [4, 8, END_OF_DOCUMENT]


def test_an_empty_prompt_begins_a_document(small):
    assert list(small.continuation([], GREEDY)) == list(small.continuation([END_OF_DOCUMENT], GREEDY))


def test_the_same_seed_draws_the_same(small):
    def drawn(seed, sample=0):
        return list(small.continuation(PROMPT, Sampling(10, 1.0, 0.95, seed), sample))

    assert drawn(0) == drawn(0) and drawn(0, 1) == drawn(0, 1)
    assert len({tuple(drawn(s, n)) for s in (0, 1) for n in (0, 1)}) == 4


def test_a_low_temperature_is_greedy(small):
    cold = Sampling(6, 1e-6, 1.0, 3)
    assert list(small.continuation(PROMPT, cold)) == list(small.continuation(PROMPT, GREEDY))


@pytest.mark.parametrize(
    ("top_p", "kept"),
    [(0.1, [2]), (0.5, [2]), (0.51, [2, 0]), (0.8, [2, 0]), (0.81, [2, 0, 1]), (0.9, [2, 0, 1]), (1.0, [2, 0, 1, 3])],
)
def test_top_p_keeps_the_fewest_tokens_that_hold_it(top_p, kept):
    p_V = np.array([0.3, 0.1, 0.5, 0.1])
    tokens, probabilities = nucleus(p_V, top_p)
    assert tokens.tolist() == kept
    np.testing.assert_array_equal(probabilities, p_V[kept])


def test_tokens_are_drawn_by_their_probability():
    rng, logits_V = np.random.default_rng(0), np.log([0.3, 0.1, 0.5, 0.1])
    drawn = np.bincount([choose(logits_V, Sampling(1, 1.0, 0.8, 0), rng) for _ in range(4000)], minlength=4)
    np.testing.assert_allclose(drawn / 4000, [3 / 8, 0, 5 / 8, 0], atol=0.03)
    drawn = np.bincount([choose(logits_V, Sampling(1, 0.5, 1.0, 0), rng) for _ in range(4000)], minlength=4)
    np.testing.assert_allclose(drawn / 4000, np.array([9, 1, 25, 1]) / 36, atol=0.03)  # p² of each, normalised


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"tokens": 0}, "--tokens=0: must be above 0"),
        ({"temperature": -1.0}, "--temperature=-1"),
        ({"temperature": float("nan")}, "--temperature=nan"),
        ({"top_p": 0.0}, "--top_p=0"),
        ({"top_p": 1.5}, "--top_p=1.5"),
        ({"seed": -1}, "--seed=-1"),
    ],
)
def test_an_impossible_value_is_refused(values, words):
    with pytest.raises(UserError, match=words):
        Sampling(**{"tokens": 1, "temperature": 1.0, "top_p": 1.0, "seed": 0} | values)


def test_what_cannot_generate_is_refused(small):
    with pytest.raises(UserError, match="17 tokens, more than the 16 positions"):
        list(small.continuation([1] * 17, GREEDY))
    t = trainer(config(*EXPERT_CHOICE))
    with pytest.raises(UserError, match="expert_choice: such a model generates no text"):
        Generator(Restored(t, None, 0), VOCABULARY, END_OF_DOCUMENT)
