"""Errors that the user reads as one sentence, and the exit codes of every verb."""

import errno

DONE = 0
FAILED = 1  # some or all of the work failed
BAD_INPUT = 2  # config, flag or input file
DIVERGED = 3  # a non-finite loss
STOPPED = 75  # preempted or asked to stop: the same command continues (EX_TEMPFAIL)


class UserError(Exception):
    """One sentence for the user: what, where, which rule, what to do. Ends a verb with `code`, without a traceback."""

    code = BAD_INPUT


class WorkFailed(UserError):
    """The input is fine but the work failed: a full disk, a store that cannot be written, a run that crashed."""

    code = FAILED


class Stopped(UserError):
    """The work was stopped by a signal or a preemption notice; what is done is saved."""

    code = STOPPED


_ENVIRONMENT = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file is larger than allowed (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
}
_WRONG_PATH = {
    errno.EISDIR: "is a folder, where a file belongs",
    errno.ENOTDIR: "is a file or lies under one, where a folder belongs",
    errno.EEXIST: "is a file, where a folder belongs",
    errno.ELOOP: "is a link that leads to itself",
    errno.ENAMETOOLONG: "is too long for this file system",
}
_OBJECT_STORES = ("aiohttp", "gcsfs", "google", "botocore")  # packages whose errors come from an object store


def environment_failure(e: BaseException) -> tuple[str, int] | None:
    """(sentence, exit code) of a failure outside the program: a full disk, a wrong path, an object store that does not
    answer. None for other errors, which are ours."""
    if type(e).__module__.partition(".")[0] in _OBJECT_STORES:
        return f"the object store failed: {type(e).__name__}: {e}; start again", FAILED
    if isinstance(e, FileNotFoundError) and "/storage/v1/b/" in str(
        e
    ):  # gcsfs's error when it writes to a bucket that does not exist
        return f"the object store has no {e}; check that the bucket exists, then start again", FAILED
    if isinstance(e, ImportError) and "gcsfs" in str(e):
        return "gs:// needs gcsfs: pip install 'moe_jax[gcs]'", BAD_INPUT
    if not isinstance(e, OSError):
        return None
    if e.errno in _ENVIRONMENT:
        where = f" at {e.filename}" if e.filename else ""
        sentence = f"{_ENVIRONMENT[e.errno]}{where}; what was saved before is intact"
        return f"{sentence}: make room or choose another place, then start again", FAILED
    if e.errno in _WRONG_PATH and e.filename:
        return f"{e.filename}: {_WRONG_PATH[e.errno]}; name another path, or move it away", BAD_INPUT
    return None
