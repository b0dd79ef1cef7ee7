"""Which token ends a document: a special one, that of the flag, of the tokenizer's config, or of the usual names."""

import io
import json

import pytest
import sentencepiece
from tokenizers import AddedToken

from moe_jax import errors
from moe_jax.cli import prepare
from moe_jax.data import vocabularies
from moe_jax.data.store import read_info
from moe_jax.data.tokenizer_json import TokenizerJson
from moe_jax.errors import UserError
from tests.data_stores import byte_level, words


@pytest.fixture
def gemma(tmp_path):
    """A tokenizer.json with the token set of Gemma: `</s>` is an HTML tag, `<eos>` and `<end_of_turn>` are special."""
    tokenizer = byte_level(end="<eos>")
    tokenizer.add_tokens([AddedToken("</s>", normalized=False)])
    tokenizer.add_special_tokens([AddedToken("<end_of_turn>", special=True)])
    path = tmp_path / "tokenizer.json"
    path.write_text(tokenizer.to_str())
    return path


def end_of(path, flag=None):
    vocabulary = vocabularies.load(str(path), flag)
    return vocabulary.end_token, vocabulary.end_of_document


def test_an_ordinary_token_ends_no_document(gemma):
    assert end_of(gemma) == ("<eos>", 0)


def test_deepseeks_end_is_known():
    vocabulary = TokenizerJson(byte_level(end="<｜end▁of▁sentence｜>").to_str().encode(), "deepseek")
    assert vocabulary.end_of_document == 0


@pytest.mark.parametrize(
    ("name", "config"),
    [
        ("tokenizer_config.json", {"eos_token": "<end_of_turn>"}),
        ("tokenizer_config.json", {"eos_token": {"content": "<end_of_turn>", "lstrip": False}}),
        ("generation_config.json", {"eos_token_id": "ID"}),
        ("config.json", {"eos_token_id": ["ID", 0]}),
    ],
)
def test_the_tokenizers_own_config_names_the_end(gemma, name, config):
    i = TokenizerJson(gemma.read_bytes(), "t")._tokenizer.token_to_id("<end_of_turn>")
    (gemma.parent / name).write_text(json.dumps(config).replace('"ID"', str(i)))
    assert end_of(gemma) == ("<end_of_turn>", i)
    assert end_of(gemma, "<eos>") == ("<eos>", 0)  # the flag comes first


def test_a_config_without_an_end_says_nothing(gemma):
    (gemma.parent / "tokenizer_config.json").write_text('{"eos_token": null}')
    (gemma.parent / "config.json").write_text("{}")
    assert end_of(gemma) == ("<eos>", 0)


@pytest.mark.parametrize("token", ["</s>", "<none>", "a"])
def test_an_end_that_is_no_special_token_is_refused(gemma, token):
    with pytest.raises(UserError, match=rf"--end_of_document names '{token}'.* name one of <eos>, <end_of_turn>"):
        vocabularies.load(str(gemma), token)
    (gemma.parent / "tokenizer_config.json").write_text(json.dumps({"eos_token": token}))
    with pytest.raises(UserError, match=rf"tokenizer_config\.json names '{token}'"):
        vocabularies.load(str(gemma))


def test_a_damaged_config_is_refused(gemma):
    (gemma.parent / "config.json").write_text("{")
    with pytest.raises(UserError, match=r"config\.json: this is not a whole JSON object"):
        vocabularies.load(str(gemma))


def test_the_end_of_a_sentencepiece_model(tmp_path):
    model, path = io.BytesIO(), tmp_path / "m.model"
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([text for _, text in words(0, 20)]), model_writer=model, vocab_size=100,
        control_symbols=["<doc>"], user_defined_symbols=["<b>"], minloglevel=2,
    )  # fmt: skip
    path.write_bytes(model.getvalue())
    assert end_of(path) == ("</s>", 2)
    assert end_of(path, "<doc>") == ("<doc>", 3)
    for token in ("<b>", "<none>"):
        with pytest.raises(UserError, match=f"--end_of_document names '{token}', which is no control token"):
            vocabularies.load(str(path), token)


@pytest.mark.parametrize("vocabulary", ["byte", "bpe:300", "task"])
def test_other_vocabularies_have_their_own_end(vocabulary, tmp_path):
    (tmp_path / "a.txt").write_text("a b c\n" * 1000)
    arguments = [f"--mixture=files:{tmp_path}/a.txt", f"--store={tmp_path}/s", f"--vocabulary={vocabulary}"]
    with pytest.raises(UserError, match=r"--end_of_document=</s>: it names a token of PATH\.model"):
        prepare.main([*arguments, "--end_of_document=</s>", "--workers=1"])
    assert not (tmp_path / "s").exists()


def test_prepare_says_which_token_ends_a_document(gemma, tmp_path, capsys):
    texts = tmp_path / "texts.jsonl"
    texts.write_text("".join(json.dumps({"text": f"{i} <s>euros</s>"}) + "\n" for i in range(40)))
    arguments = [f"--mixture=files:{texts}", f"--store={tmp_path}/s", f"--vocabulary={gemma}", "--workers=1"]
    for _ in range(2):  # the second time it is finished
        assert prepare.main([*arguments, "--end_of_document=<end_of_turn>"]) == errors.DONE
        info = read_info(str(tmp_path / "s"))
        assert f"documents end in <end_of_turn> (id {info.end_of_document})" in capsys.readouterr().out
    with pytest.raises(UserError, match="made with end_of_document=<end_of_turn>, not None"):
        prepare.main(arguments)


def test_a_vocabulary_without_tokens_is_refused():
    fields = json.loads(byte_level().to_str())
    fields["added_tokens"], fields["model"]["vocab"], fields["model"]["merges"] = [], {}, []
    with pytest.raises(UserError, match="it has no tokens"):
        TokenizerJson(json.dumps(fields).encode(), "t")


@pytest.mark.parametrize("i", [2**24, 4_000_000_000])
def test_an_enormous_id_is_refused(i):
    fields = json.loads(byte_level().to_str())
    fields["model"]["vocab"]["enormous"] = i
    with pytest.raises(UserError, match=f"its token 'enormous' has the id {i}; ids must be below 16777216"):
        TokenizerJson(json.dumps(fields).encode(), "t")
