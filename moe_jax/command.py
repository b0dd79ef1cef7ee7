"""What is around every verb: flags, one sentence instead of a traceback, exit codes.

A verb is a module with `main(argv) -> exit code | None`; it builds its parser with `parser()`, so that the flags of one
verb are no business of another's and `--help` answers before anything heavy is imported.
"""

import argparse
import errno
import os
import sys
from collections.abc import Callable, Sequence

from moe_jax import errors

_WORLD = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "operation not permitted",
}


def parser(verb: str, description: str) -> argparse.ArgumentParser:
    """A parser whose mistakes end with code 2 and one sentence, and which never guesses an abbreviated flag."""
    return argparse.ArgumentParser(
        prog=f"moe-jax {verb}",
        description=description,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> int:
    """Calls main(argv) and turns how it ends into an exit code of `errors`, with a sentence on stderr."""
    try:
        return main(sys.argv[1:] if argv is None else argv) or errors.DONE
    except errors.UserError as e:
        return _say(str(e), e.code)
    except KeyboardInterrupt:
        return _say("stopped; the same command goes on where it was", errors.STOPPED)
    except BrokenPipeError:  # `moe-jax status | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return errors.DONE
    except OSError as e:
        if (said := world_sentence(e)) is None:
            raise
        return _say(said, errors.FAILED)


def world_sentence(e: OSError) -> str | None:
    """One sentence for a full disk, a read-only folder and the like; None where the error is our own."""
    if e.errno not in _WORLD:
        return None
    where = f" at {e.filename}" if e.filename else ""
    return (
        f"{_WORLD[e.errno]}{where}; what was saved before is intact: make room or pick another place, then start again"
    )


def _say(sentence: str, code: int) -> int:
    print(f"moe-jax: {sentence}", file=sys.stderr, flush=True)
    return code
