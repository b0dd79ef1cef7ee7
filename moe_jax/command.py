"""What is around every verb: flags, one sentence instead of a traceback, exit codes.

A verb is a module with `main(argv) -> exit code | None`; it builds its parser with `parser()`, so that the flags of one
verb are no business of another's and `--help` answers before anything heavy is imported.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn

from moe_jax import errors, interrupts

_WORLD = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EFBIG: "a file may not grow so large (ulimit -f)",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
}
_WRONG_PATH = {
    errno.EISDIR: "is a folder, where a file belongs",
    errno.ENOTDIR: "is a file or lies under one, where a folder belongs",
    errno.EEXIST: "is a file, where a folder belongs",
    errno.ELOOP: "is a link that leads to itself",
    errno.ENAMETOOLONG: "is too long a name for this file system",
}
_OBJECT_STORES = ("aiohttp", "gcsfs", "google", "botocore")  # whose errors come from the other end of a network


def parser(verb: str, description: str) -> argparse.ArgumentParser:
    """A parser whose mistakes end with code 2 and one sentence, and which never guesses an abbreviated flag."""
    return argparse.ArgumentParser(
        prog=f"moe-jax {verb}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def end(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Runs main(argv) and ends the process with its exit code."""
    code = run(main, argv, ends=True)
    # An interrupt that passes through exec() of a string, as dataclasses and namedtuple do, leaves a mark by which
    # `python -m` ends with 130 whatever it is told; CPython removes it when it begins another exec (to 3.13 at least).
    exec("")  # noqa: S102
    sys.exit(code)


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None, ends: bool = False) -> int:
    """Calls main(argv) and turns how it ends into an exit code of `errors`, with a sentence on stderr."""
    try:
        with interrupts.sigterm_as_interrupt(ends):
            return main(sys.argv[1:] if argv is None else argv) or errors.DONE
    except errors.UserError as e:
        return _say(str(e), e.code)
    except KeyboardInterrupt:
        return _say("stopped; the same command goes on where it was", errors.STOPPED)
    except BrokenPipeError:  # `moe-jax status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.DONE
    except Exception as e:
        if (known := of_outside(e)) is None:
            raise
        return _say(*known)


def of_outside(e: BaseException) -> tuple[str, int] | None:
    """(sentence, exit code) for what the world does to us: full disks, wrong paths, object stores that do not answer.
    None where the error is our own."""
    if type(e).__module__.partition(".")[0] in _OBJECT_STORES:
        return f"the object store does not answer as it should: {type(e).__name__}: {e}; start again", errors.FAILED
    if isinstance(e, FileNotFoundError) and "/storage/v1/b/" in str(e):  # as gcsfs says it of what it writes
        return f"the object store finds no {e}; see that the bucket is there, then start again", errors.FAILED
    if isinstance(e, ImportError) and "gcsfs" in str(e):
        return "gs:// needs gcsfs: pip install 'moe_jax[gcs]'", errors.BAD_INPUT
    if not isinstance(e, OSError):
        return None
    if e.errno in _WORLD:
        where = f" at {e.filename}" if e.filename else ""
        sentence = f"{_WORLD[e.errno]}{where}; what was saved before is intact: make room or pick another place, then "
        return f"{sentence}start again", errors.FAILED
    if e.errno in _WRONG_PATH and e.filename:
        return f"{e.filename}: {_WRONG_PATH[e.errno]}; name another path, or move it away", errors.BAD_INPUT
    return None


def _say(sentence: str, code: int) -> int:
    print(f"moe-jax: {sentence}", file=sys.stderr, flush=True)
    return code
