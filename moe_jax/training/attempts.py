"""A start of a run: which config its folder holds, who else trains it, and how the start ended."""

import contextlib
import dataclasses
import os
import uuid
from collections.abc import Callable, Iterator

from moe_jax import errors, files
from moe_jax.sweep.result import Result, Status, TrunkResult
from moe_jax.sweep.rundir import RunDir
from moe_jax.training import processes


@dataclasses.dataclass
class Claim:
    """One start of a run: its number, from 1, the token that tells it from any other start, and how it ended."""

    number: int
    token: str
    code: int = errors.FAILED  # the exit code that is noted, unless an exception says otherwise
    sentence: str = ""
    has_result: bool = False

    def end_with(self, result: Result | TrunkResult) -> None:
        """Records the result that the start reached; it counts whatever happens afterwards."""
        done = result.status == Status.DONE
        self.has_result = True
        self.code = errors.DONE if done else errors.DIVERGED
        self.sentence = "" if done else f"the loss is not finite at step {result.steps}"


def refuse_another(folder: RunDir, config_hash: str) -> None:
    """Raises UserError where the folder holds a run of another config, for example where its sweep.json was deleted."""
    if others := folder.config_hashes() - {config_hash}:
        raise errors.UserError(
            f"{folder.name}: {folder.path} holds a run of another config (config_hash {min(others)}, not "
            f"{config_hash}); choose another workdir, or move that folder away"
        )


def finished(folder: RunDir, say: Callable[[str], None]) -> Result | None:
    """The run's result, None where there is none. A damaged result is set aside, to be made again from the last
    checkpoint. The first process decides for all."""
    result = None
    if processes.is_first():
        try:
            result = folder.result()
        except files.UnreadableFile:  # it may be sound
            raise
        except files.DamagedFile as e:
            say(f"{e}; it is set aside as {folder.set_damaged_result_aside().name} and made again")
    if not processes.first_says(result is not None):
        return None
    return folder.result() if result is None else result


@contextlib.contextmanager
def locked(folder: RunDir, wait_seconds: float = 60.0) -> Iterator[None]:
    """Keeps other processes of this machine off the run, by a lock that the system frees however its holder ends. Makes
    the folder."""
    if processes.is_first():
        folder.create()
    lock = folder.lock(wait_seconds) if processes.is_first() else None
    try:
        yield
    finally:
        if lock is not None:
            os.close(lock)


@contextlib.contextmanager
def claimed(folder: RunDir) -> Iterator[Claim]:
    """Notes a start in the run's folder, and at its end how it ended; the first process writes.

    Raises WorkFailed where the folder was removed meanwhile."""
    writes, token = processes.is_first(), uuid.uuid4().hex
    claim = Claim(folder.begin_attempt(token) if writes else 0, token)
    try:
        yield claim
    except errors.UserError as e:
        if not claim.has_result:
            claim.code, claim.sentence = e.code, str(e)
        raise
    except BaseException as e:
        if not claim.has_result:
            claim.sentence, claim.code = errors.environment_failure(e) or (f"{type(e).__name__}: {e}", errors.FAILED)
        if isinstance(e, Exception) and writes and not folder.has_attempt(claim.number):
            raise errors.WorkFailed(
                f"{folder.name}: {folder.path} was removed while it was trained, and all that was saved with it; "
                "start again, and it begins anew"
            ) from e
        raise
    finally:
        if writes:
            with contextlib.suppress(OSError):  # a full disk has been reported already
                folder.end_attempt(claim.number, claim.code, claim.sentence, claim.token)
