"""Where the continuation begins, what is cut, and what is refused."""

import numpy as np
import pytest

from moe_jax.data.sentencepiece_bpe import SentencePieceVocabulary, train_bpe
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.data.vocabularies import ByteVocabulary
from moe_jax.errors import UserError
from moe_jax.evaluation.tasks import batching
from moe_jax.evaluation.tasks.encoding import Encoder
from tests.data_stores import byte_level, words
from tests.evaluation.tasks.made_requests import made_set

END = 1


def vocabularies():
    texts = [text for seed in range(3) for _, text in words(seed, 20)]
    yield ByteVocabulary()
    yield SentencePieceVocabulary(train_bpe(300, texts), "bpe")
    yield TokenizerJson(byte_level().to_str().encode(), "tokenizer.json")


@pytest.mark.parametrize("vocabulary", [*vocabularies()], ids=["bytes", "sentencepiece", "tokenizer.json"])
def test_the_rule_of_the_harness(vocabulary):
    """Its three lines, on requests of all kinds: spaces move, the split is where the context alone ends."""
    encoder = Encoder(vocabulary, vocabulary.end_of_document, 1000)
    pairs = [*made_set(30).pairs, ("ends in spaces  \n ", "word"), ("no", "space"), ("a", " b c")]
    for (context, continuation), found in zip(pairs, encoder.encode(pairs, "t"), strict=True):
        spaces = len(context) - len(context.rstrip())
        if spaces:
            continuation = context[-spaces:] + continuation
            context = context[:-spaces]
        whole, alone = vocabulary.encode(context + continuation), vocabulary.encode(context)
        answer = whole[len(alone) :] if context else vocabulary.encode(continuation)
        before = alone if context else [vocabulary.end_of_document]
        assert found.tokens.tolist() == [*before, *answer] and found.answer == len(answer) and not found.cut


def test_long_contexts_lose_their_beginning():
    encoder = Encoder(ByteVocabulary(), END, 8)
    short, cut, full = encoder.encode([("abc", "de"), ("abcdefgh", "ij"), ("abc", "12345678")], "t")
    text = ByteVocabulary().decode
    assert text(short.tokens) == "abcde" and not short.cut
    assert text(cut.tokens) == "bcdefghij" and cut.cut and cut.answer == 2
    assert text(full.tokens) == "c12345678" and full.cut and full.answer == 8  # nine tokens: eight positions


def test_continuations_that_do_not_fit_are_refused():
    with pytest.raises(UserError, match=r"t: the continuations of 2 requests of 3 have up to 10 tokens.*8 positions"):
        Encoder(ByteVocabulary(), END, 8).encode([("a", "123456789"), ("a", "b"), ("a", "1234567890")], "t")


def test_continuations_without_tokens_are_refused():
    with pytest.raises(UserError, match="1 request have no token of their own"):
        Encoder(ByteVocabulary(), END, 8).fit([(np.array([5]), np.array([], np.int32))], "t")


@pytest.mark.parametrize("seed", range(5))
def test_batches_hold_each_request_once(seed):
    rng = np.random.default_rng(seed)
    positions, parts = int(rng.integers(20, 700)), int(rng.choice([1, 2, 8]))
    lengths = np.minimum(rng.geometric(0.02, rng.integers(1, 400)), positions).tolist()
    batches = batching.plan(lengths, positions, 512, parts)
    assert sorted(i for batch in batches for i in batch.requests) == list(range(len(lengths)))
    for batch in batches:
        assert max(lengths[i] for i in batch.requests) <= batch.length <= positions
        assert batch.rows % parts == 0 and batch.rows * batch.length <= max(512, batch.length) * parts
    assert all(len(batch.requests) == batch.rows for batch in batches[:-1]), "rows are empty in the last batch alone"
    assert len({batch.length for batch in batches}) <= len(batching.padded_lengths(max(lengths), positions)) <= 11


def test_no_requests_have_no_batches():
    assert batching.plan([], 64, 512, 1) == []
