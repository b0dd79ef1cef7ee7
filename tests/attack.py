"""Damages to the files of a finished sweep, and what each verb that reads them makes of it.

A case is (file kind, damage, verb). The verb runs in this process on a copy of a sound sweep, in which one file is
damaged, and the case is classed:

    same        exit code 0, and what it prints and writes is what the sound sweep gives
    said        exit code 0, another outcome, and it names the damage
    refused     exit code 1 or 2, and one sentence
    silent      exit code 0, another outcome, and not a word about it
    absent      the same where the file was removed: a run without a result has not ended, no seal can say otherwise
    traceback   an exception
    hangs       no end within LIMIT_SECONDS
"""

import collections
import contextlib
import dataclasses
import importlib
import io
import json
import os
import re
import shutil
import signal
from pathlib import Path
from typing import Any

from moe_jax import errors
from moe_jax.cli import command
from tests.attacked_sweep import TABLES, other_files, path_of, trained_run
from tests.damages import GONE, Damage, damages
from tests.submit_verb import XPK
from tests.unreadable import unreadable

CLASSES = ("same", "said", "refused", "absent", "silent", "traceback", "hangs")
FAULTS = {False: ("traceback", "hangs"), True: ("traceback", "hangs", "silent")}  # by whether the file is sealed
LIMIT_SECONDS = 30
READS = {
    "status": (
        "sweep.json", "run.json", "result.json", "submission.json", "collected.json", "heartbeat.json", "attempt",
    ),
    "collect": ("sweep.json", "run.json", "result.json", "collected.json"),
    "submit": ("sweep.json", "result.json", "submission record", "plan.json", "heartbeat.json", "attempt"),
    "plan": ("plan.json",),
    "fit": TABLES,
    "optimum": ("law.json", "law.bootstrap.csv"),
    "predict": ("sweep.json", "result.json", "law.json", "law.bootstrap.csv"),
    "evaluate": ("trained run.json", "checkpoint digest", "checkpoint array", "store.json"),
    "report": (
        "sweep.json", "run.json", "result.json", "collected.json", "metrics.jsonl", "heartbeat.json", "results.csv",
        "law.json",
    ),
}  # fmt: skip
_GRID = "--config=tests/synthetic_grid.py"
_ARGUMENTS = {
    "status": ["--workdir={w}", "--json"],
    "collect": ["--workdir={w}"],
    "submit": [_GRID, "--config.data.store={w}/store", "--workdir={w}", "--dry_run", *XPK],
    "plan": [_GRID, "--config.data.store={w}/store", "--workdir={w}"],
    "fit": ["--results={w}/{table}", "--law=chinchilla", "--bootstrap=0", "--starts=8", "--out={w}/refit.json"],
    "optimum": ["--law={w}/law.json", "--flops=1e18,1e20"],
    "predict": ["--workdir={w}"],
    "evaluate": ["--workdir={trained}", "--store={w}/store"],
    "report": ["--workdir={w}"],
}  # fmt: skip
_WRITES = {
    "status": (), "collect": ("results.csv",), "submit": (), "plan": ("plan.json",), "fit": ("refit.json",),
    "optimum": ("optimum.csv",), "predict": ("prediction.csv",),
    "evaluate": ("trained/runs/*/evaluations/store-store.json",), "report": ("report.html",),
}  # fmt: skip
# The time of day, and what follows from it, differs between two runs of a verb on the same files.
_MOVING = re.compile(
    r"\d{4}-\d\d-\d\d[ T]\d\d:\d\d(:\d\d)?|\"(time|age_seconds|predicted_at|fields_sha256)\": \"?[\w.]+|\d+ m?s\b"
)


@dataclasses.dataclass(frozen=True)
class Outcome:
    """What a verb does with a folder."""

    code: int | None  # None: an exception or no end
    told: str  # on stdout and stderr, and the exception's last line
    written: tuple[str | None, ...]


def attack_kind(sound: Path, scratch: Path, verb: str, kind: str, most: int) -> dict[str, list[str]]:
    """Class -> the names of the damages; at most `most` damages are tried, evenly drawn from all."""
    expected, found = outcome_of(sound, scratch, verb, kind), collections.defaultdict(list)
    assert expected.code == errors.DONE, expected.told
    for damage in damages(path_of(sound, kind), other_files(sound, kind), most):
        found[attack(sound, scratch, verb, kind, damage, expected)].append(damage.name)
    return found


def attack(sound: Path, scratch: Path, verb: str, kind: str, damage: Damage, expected: Outcome) -> str:
    """The class of one case; see the module's docstring."""
    outcome = outcome_of(sound, scratch, verb, kind, damage)
    if outcome.code is None:
        return "hangs" if outcome.told.endswith("no end") else "traceback"
    if outcome.code != errors.DONE:
        return "refused"
    if outcome == expected:
        return "same"
    new = [line for line in outcome.told.splitlines() if line not in expected.told.splitlines()]
    page = " ".join(x or "" for x in outcome.written)
    if _NAMED.search(" ".join(new) + page):
        return "said"
    return "absent" if damage.name == GONE else "silent"


_NAMED = re.compile(r"damaged|cannot be read|left out|not written with|is skipped|is missing|unknown")


def outcome_of(sound: Path, scratch: Path, verb: str, kind: str | None = None, damage: Damage | None = None) -> Outcome:
    """What the verb does with a copy of the sound sweep, of which the file of that kind is damaged."""
    copy = scratch / "w"
    shutil.rmtree(copy, ignore_errors=True)
    shutil.copytree(sound, copy, copy_function=os.link)  # whoever writes here writes a new file
    named = {"w": copy, "trained": trained_run(copy), "table": kind if kind in TABLES else TABLES[0]}
    argv = [argument.format_map(named) for argument in _ARGUMENTS[verb]]
    if damage is None:
        return run(verb, argv, copy)
    path = path_of(copy, kind)
    damage.apply(path)
    with unreadable(path) if damage.hides else contextlib.nullcontext():
        return run(verb, argv, copy)


def run(verb: str, argv: list[str], folder: Path) -> Outcome:
    main = importlib.import_module(f"moe_jax.cli.{verb}").main
    said = io.StringIO()
    old = signal.signal(signal.SIGALRM, _give_up)
    signal.setitimer(signal.ITIMER_REAL, LIMIT_SECONDS)
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            code = command.run(main, argv)
    except _NoEnd:
        return Outcome(None, said.getvalue() + "no end", ())
    except SystemExit as e:
        code = e.code if isinstance(e.code, int) else 2
    except BaseException as e:  # what a user would see as a traceback
        return Outcome(None, f"{said.getvalue()}{type(e).__name__}: {e}", ())
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, old)
    written = tuple(_content(path) for name in _WRITES[verb] for path in folder.glob(name))
    return Outcome(code, _MOVING.sub("", said.getvalue()), written)


def _content(path: Path) -> str | None:
    with contextlib.suppress(PermissionError):  # it is the damaged file, which nobody may read
        if not path.is_file():
            return None
        text = path.read_text(errors="replace")
        with contextlib.suppress(ValueError, RecursionError):  # of JSON the values count, not how they are spaced
            text = json.dumps(json.loads(text), indent=1) if path.suffix == ".json" else text
        return _MOVING.sub("", text)
    return "unreadable"


class _NoEnd(BaseException):
    """No verb catches it."""


def _give_up(*_: Any) -> None:
    raise _NoEnd
