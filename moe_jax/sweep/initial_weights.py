"""The checkpoint that train.init_from names, and its digest, which stands in its place in config hashes."""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from typing import NoReturn

from etils import epath

from moe_jax.config.checks import refuse
from moe_jax.config.grid import Run
from moe_jax.config.schema import Config
from moe_jax.sweep.rundir import RunDir


def with_digests(runs: Sequence[Run]) -> list[Run]:
    """The runs, with train.init_sha256 where only train.init_from is given. Raises UserError where that names no
    checkpoint."""
    known: dict[str, str] = {}
    return [_with_digest(run, known) for run in runs]


def _with_digest(run: Run, known: dict[str, str]) -> Run:
    train = run.config.train
    if train.init_from is None or train.init_sha256 is not None:
        return run
    if train.init_from not in known:
        folder, step = named(train.init_from)
        known[train.init_from] = digest(folder, step)
    train = dataclasses.replace(train, init_sha256=known[train.init_from])
    return dataclasses.replace(run, config=dataclasses.replace(run.config, train=train))


def named(init_from: str) -> tuple[RunDir, int]:
    """(the run's folder, the step) of `W/runs/NAME` or `W/runs/NAME@STEP`; the newest step where none is given.

    Raises UserError where there is no such run or step."""
    path, at, step = init_from.rpartition("@")
    if not (at and step.isdecimal()):
        path, step = init_from, ""
    folder = RunDir(epath.Path(path))
    steps = folder.saved_steps()
    if not steps:
        _refuse(init_from, "is no folder of a run with a checkpoint; name W/runs/NAME, W/runs/NAME@STEP or an import")
    if step and int(step) not in steps:
        _refuse(init_from, f"the run has no checkpoint of that step; it has {', '.join(map(str, steps))}")
    return folder, int(step) if step else steps[-1]


def digest(folder: RunDir, step: int) -> str:
    """SHA-256 over the digests of the files of a checkpoint: the same wherever it is copied. Raises UserError where
    they cannot be read."""
    stated = folder.saved(step).get("files")
    if not isinstance(stated, dict):
        _refuse(str(folder.path), f"the digests of its checkpoint {step} are damaged; name another step")
    return hashlib.sha256(json.dumps(stated, sort_keys=True).encode()).hexdigest()


def of_digest(config: Config) -> tuple[RunDir, int]:
    """The checkpoint that the run is to begin from, by its digest: a run that went on has newer ones.

    Raises UserError where it is not there any more, or is another one."""
    folder, newest = named(config.train.init_from)
    for step in [newest, *reversed(folder.saved_steps())]:
        if digest(folder, step) == config.train.init_sha256:
            return folder, step
    _refuse(
        config.train.init_from,
        f"has no checkpoint of the digest {config.train.init_sha256[:12]}…, from which the run was to begin; put that "
        "one back, or choose another workdir",
    )


def _refuse(init_from: str, rule: str) -> NoReturn:
    refuse("train.init_from", init_from, rule)
