"""COPA and MMLU, which the wheel has as Arrow tables only: their prompts are ours (docs/tasks.md shows them).

COPA   The premise without its full stop, then ` because` or ` so`; the continuations are the two sentences, their first
       letter small unless it is the word I.
MMLU   `Question: …\\nAnswer:` with the answers' texts as continuations (rc), or with the answers listed under letters
       and the letters as continuations (mc); shots are the first questions of the subject's dev split, in order.
"""

import dataclasses
import re
from collections.abc import Mapping
from typing import Any

from moe_jax.errors import UserError
from moe_jax.evaluation.tasks.requests import Document, RequestSet

_LETTERS = "ABCDEFGHIJ"
_MMLU = re.compile(r"mmlu_no_train/([a-z_]+)/(dev|test)/[^/]+\.arrow$")


@dataclasses.dataclass(frozen=True)
class OwnTask:
    """A task whose prompts are made here."""

    table: re.Pattern[str]  # names of its Arrow files
    variants: tuple[str, ...]


TASKS = {
    "copa": OwnTask(re.compile(r"super_glue/copa/validation/[^/]+\.arrow$"), ("rc_0shot",)),
    "mmlu": OwnTask(_MMLU, ("mc_5shot", "rc_0shot", "rc_5shot")),
}


def read(task: str, variant: str, tables: Mapping[str, bytes]) -> RequestSet:
    """The set of a task of TASKS from its Arrow files, by name. Raises UserError where they are not what they were."""
    shots = int(re.search(r"_(\d+)shot", variant)[1])
    rows = {name: _rows(name, content) for name, content in tables.items()}
    try:
        documents = _copa(rows) if task == "copa" else _mmlu(rows, shots, letters=variant.startswith("mc"))
    except (KeyError, TypeError, IndexError, AttributeError) as e:
        raise UserError(f"the tables of {task} have other columns than those of the wheel ({e!r})") from e
    return RequestSet(task, variant, shots, tuple(documents))


def _rows(name: str, content: bytes) -> list[dict[str, Any]]:
    import pyarrow as pa

    try:
        with pa.ipc.open_stream(content) as reader:
            return reader.read_all().to_pylist()
    except (pa.ArrowInvalid, OSError) as e:
        raise UserError(f"{name}: is no whole Arrow stream; get it again") from e


def _copa(rows: Mapping[str, list[dict[str, Any]]]) -> list[Document]:
    words = {"cause": "because", "effect": "so"}
    documents = []
    for row in (row for part in rows.values() for row in part):
        context = f"{row['premise'].strip().removesuffix('.')} {words[row['question']]}"
        choices = (row["choice1"].strip(), row["choice2"].strip())
        pairs = tuple((context, f" {_small(choice)}") for choice in choices)
        documents.append(Document(pairs, row["label"]))
    return documents


def _small(sentence: str) -> str:
    """The sentence with a small first letter, unless its first word is I."""
    return sentence if re.match(r"I\b", sentence) else sentence[0].lower() + sentence[1:]


def _mmlu(rows: Mapping[str, list[dict[str, Any]]], shots: int, letters: bool) -> list[Document]:
    splits: dict[tuple[str, str], list[dict[str, Any]]] = {}
    for name, part in rows.items():
        splits.setdefault(_MMLU.search(name).groups(), []).extend(part)
    documents = []
    for subject in sorted({subject for subject, _ in splits}):
        solved = splits[subject, "dev"][:shots] if shots else []
        before = [f"{_question(row, letters)}{_answers(row, letters)[row['answer']]}\n\n" for row in solved]
        head = f"The following are questions (with answers) about {subject.replace('_', ' ')}.\n\n{''.join(before)}"
        for row in splits[subject, "test"]:
            context = head + _question(row, letters)
            pairs = tuple((context, answer) for answer in _answers(row, letters))
            documents.append(Document(pairs, row["answer"]))
    return documents


def _question(row: Mapping[str, Any], letters: bool) -> str:
    listed = "".join(f" {_LETTERS[i]}. {choice}\n" for i, choice in enumerate(row["choices"])) if letters else ""
    return f"Question: {row['question'].strip()}\n{listed}Answer:"


def _answers(row: Mapping[str, Any], letters: bool) -> list[str]:
    """The continuations, each with its leading space."""
    return [f" {_LETTERS[i]}" if letters else f" {str(choice).strip()}" for i, choice in enumerate(row["choices"])]
