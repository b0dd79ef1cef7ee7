"""The tasks by name, and which variant is meant where none is named. docs/tasks.md says which paper names which.

`TASK` is a task below in its variant; `TASK:VARIANT` is any set that the requests have, and is named TASK_VARIANT in
results.
"""

import dataclasses
import difflib
from collections.abc import Mapping, Sequence

from moe_jax.errors import UserError
from moe_jax.sweep.evaluation_record import check_name


@dataclasses.dataclass(frozen=True)
class Task:
    """A task of the papers, as the wheel names it."""

    title: str  # as papers write it
    variant: str  # the whole split, with the shots of OLMES (Gu et al. 2024) where there are any


TASKS = {
    "arc_challenge": Task("ARC-Challenge", "test_rc_5shot"),
    "arc_easy": Task("ARC-Easy", "test_rc_5shot"),
    "boolq": Task("BoolQ", "val_rc_5shot"),
    "copa": Task("COPA", "rc_0shot"),
    "coqa": Task("CoQA", "bpb_0shot"),
    "csqa": Task("CommonsenseQA", "val_rc_5shot"),
    "hellaswag": Task("HellaSwag", "val_rc_5shot"),
    "lambada": Task("LAMBADA", "bpb_0shot"),
    "mmlu": Task("MMLU", "rc_5shot"),
    "openbookqa": Task("OpenBookQA", "test_rc_5shot"),
    "piqa": Task("PIQA", "val_rc_5shot"),
    "sciq": Task("SciQ", "rc_5shot"),
    "socialiqa": Task("SocialIQA", "val_rc_5shot"),
    "squad": Task("SQuAD", "bpb_5shot"),
    "winogrande": Task("WinoGrande", "val_rc_5shot"),
}


@dataclasses.dataclass(frozen=True)
class Chosen:
    """What --tasks names: one request set, and its name in results."""

    name: str
    task: str
    variant: str


def choose(asked: str, variants: Mapping[str, Sequence[str]]) -> list[Chosen]:
    """The sets of `TASK,TASK:VARIANT,…`, of those that the requests have. Raises UserError with the nearest names."""
    chosen = [_choose(name.strip(), variants) for name in asked.split(",") if name.strip()]
    if not chosen:
        raise UserError(f"--tasks={asked}: names no task; name some of {', '.join(TASKS)}")
    names = [one.name for one in chosen]
    if twice := next((name for name in names if names.count(name) > 1), None):
        raise UserError(f"--tasks={asked}: names {twice} twice")
    return chosen


def _choose(asked: str, variants: Mapping[str, Sequence[str]]) -> Chosen:
    task, _, variant = asked.partition(":")
    if task not in variants:
        raise UserError(f"--tasks={asked}: {_unknown(task, variants)}")
    if not variant:
        variant = TASKS[task].variant if task in TASKS else ""
        if variant not in variants[task]:
            if len(variants[task]) > 1:
                raise UserError(f"--tasks={asked}: name one of its variants: {_written(task, variants[task])}")
            variant = variants[task][0]
        return Chosen(check_name(task), task, variant)
    if variant not in variants[task]:
        raise UserError(f"--tasks={asked}: these requests have {_written(task, variants[task])}")
    return Chosen(check_name(f"{task}_{variant}"), task, variant)


def _written(task: str, variants: Sequence[str]) -> str:
    return ", ".join(f"{task}:{variant}" for variant in variants)


def _unknown(task: str, variants: Mapping[str, Sequence[str]]) -> str:
    """Why the requests have no such task: with the nearest names, by the wheel's spelling and by the papers'."""
    if task in TASKS:
        return f"these requests have no {task}; they have {', '.join(variants) or 'none at all'}"
    spellings = {name.replace("_", ""): name for name in variants}
    spellings |= {_letters(TASKS[name].title): name for name in variants if name in TASKS}
    near = [spellings[found] for found in difflib.get_close_matches(_letters(task), spellings, 3)]
    if near:
        return f"there is no such task; the nearest are {', '.join(dict.fromkeys(near))}"
    return f"there is no such task; these requests have {', '.join(variants) or 'none'}"


def _letters(name: str) -> str:
    return "".join(c for c in name.lower() if c.isalnum())
