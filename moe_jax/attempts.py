"""A start of a run, around its training: whose folder it is, who else is at it, and how it ended."""

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

from moe_jax import command, errors, files, processes
from moe_jax.rundir import RunDir

if TYPE_CHECKING:
    from moe_jax.training import Training


@dataclasses.dataclass(frozen=True)
class Attempt:
    """One start of a run: its number, from 1, and what tells it from any other."""

    number: int
    token: str


def refuse_another(folder: RunDir, config_hash: str) -> None:
    """UserError where the folder holds a run of another config, as where its sweep.json was deleted."""
    if others := folder.config_hashes() - {config_hash}:
        raise errors.UserError(
            f"{folder.name}: {folder.path} holds a run of another config (config_hash {min(others)}, not "
            f"{config_hash}); choose another workdir, or move that folder away"
        )


def begin(folder: RunDir) -> Attempt:
    """Notes a start; of several processes the first does."""
    token = uuid.uuid4().hex
    return Attempt(folder.begin_attempt(token) if processes.is_first() else 0, token)


def finished(folder: RunDir, say: Callable[[str], None]) -> dict[str, Any] | None:
    """The run's result, if it has a readable one; a damaged one is set aside and made again from the last
    checkpoint. Of several processes the first looks, and all do as it does."""
    result = None
    if processes.is_first():
        try:
            result = folder.result()
        except files.DamagedFile as e:
            say(f"{e}; it is set aside as {folder.set_damaged_result_aside().name} and made again")
    if not processes.first_says(result is not None):
        return None
    return folder.result() if result is None else result


@contextlib.contextmanager
def only_one(folder: RunDir, wait_seconds: float = 60.0) -> Iterator[None]:
    """No two processes train one run on one machine: a lock that the system frees however its holder ends."""
    lock = folder.lock(wait_seconds) if processes.is_first() else None
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def noted(run: "Training", attempt: Attempt) -> Iterator[None]:
    """Closes what the run has open, however it ends, and notes in its folder how that was. Raises WorkFailed where that
    folder was removed."""
    code, sentence = errors.FAILED, ""
    try:
        yield
    except errors.UserError as e:
        code, sentence = e.code, str(e)
        raise
    except BaseException as e:
        sentence, code = command.of_outside(e) or (f"{type(e).__name__}: {e}", errors.FAILED)
        if isinstance(e, Exception) and run.writes and not run.folder.has_attempt(attempt.number):
            raise errors.WorkFailed(
                f"{run.folder.name}: {run.folder.path} was removed while it was trained, and all that was saved with "
                "it; start again, and it begins anew"
            ) from e
        raise
    finally:
        if run.result is not None:
            done = run.result["status"] == "done"
            code = errors.DONE if done else errors.DIVERGED
            sentence = "" if done else f"the loss is not finite at step {run.result['steps']}"
        run.recorder.close()
        with contextlib.suppress(Exception):  # a save that was under way is finished; what ends the run is said
            run.checkpoints.close()
        if run.writes:
            with contextlib.suppress(OSError):  # a full disk has been said already
                run.folder.end_attempt(attempt.number, code, sentence, attempt.token)
