"""The frame around every verb: its parser, its exit code, and one sentence instead of a traceback.

A verb is a module with `main(argv) -> exit code | None`, which builds its own parser with `parser()`. So each verb has
its own flags, and `--help` answers before anything heavy is imported.
"""

import argparse
import os
import sys
from collections.abc import Callable, Collection, Sequence
from typing import NoReturn, TextIO

from moe_jax import errors, interrupts
from moe_jax.cli.parser import Parser


def parser(verb: str, description: str, parents: Sequence[argparse.ArgumentParser] = ()) -> Parser:
    """The parser of a verb."""
    return Parser(verb, description, parents)


def refuse_idle(parser: argparse.ArgumentParser, flags: argparse.Namespace, meant: Collection[str], where: str) -> None:
    """Raises UserError for a given flag that has no effect: one that is not in `meant`. `where` names the case."""
    if idle := [k for k, v in vars(flags).items() if k not in meant and v != parser.get_default(k)]:
        raise errors.UserError(f"--{idle[0]} means nothing for {where}")


def prepare_streams() -> None:
    """Makes output safe: what the encoding cannot show is replaced, and a closed stream (`>&-`) swallows
    everything."""
    for name in ("stdout", "stderr"):
        if (stream := getattr(sys, name)) is None:
            setattr(sys, name, open(os.devnull, "w"))  # noqa: SIM115 (for the life of the process)
        elif hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="replace")


def end(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None) -> NoReturn:
    """Runs `main(argv)` and ends the process with its exit code."""
    code = run(main, argv, ends=True)
    # An interrupt that passes through exec() of a string (dataclasses and namedtuple use it) leaves a mark that makes
    # `python -m` end with 130, whatever the exit code. CPython removes it at the next exec (up to 3.13 at least).
    exec("")  # noqa: S102
    sys.exit(code)


def run(main: Callable[[Sequence[str]], int | None], argv: Sequence[str] | None = None, ends: bool = False) -> int:
    """Calls `main(argv)` and returns an exit code of `errors`; an error is printed as one sentence on stderr."""
    try:
        with interrupts.sigterm_as_interrupt(ends):
            try:
                return main(sys.argv[1:] if argv is None else argv) or errors.DONE
            finally:
                _flush()
    except errors.UserError as e:
        return _say(str(e), e.code)
    except KeyboardInterrupt:
        return _say("stopped; the same command goes on where it was", errors.STOPPED)
    except BrokenPipeError:  # `moe-jax status | head`
        _silence(sys.stdout)
        return errors.DONE
    except Exception as e:
        if isinstance(e, ImportError) and _follows_interrupt(e):
            return _say("stopped; the same command goes on where it was", errors.STOPPED)
        if (known := errors.environment_failure(e)) is None:
            raise
        return _say(*known)


def _flush() -> None:
    """Writes what standard output still holds, while a failure can be told: Python's own flush at the end of the
    process would print a warning and end it with 120."""
    if sys.stdout is None:  # closed, in a process that `moe-jax` did not start
        return
    try:
        sys.stdout.flush()
    except BrokenPipeError:
        _silence(sys.stdout)
    except OSError:
        _silence(sys.stdout)
        raise


def _silence(stream: TextIO) -> None:
    """Nobody reads the stream any more: what it holds, and what comes, goes nowhere."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _follows_interrupt(e: ImportError) -> bool:
    """Whether an interrupt led to the error: a C extension that is interrupted while it is imported raises an
    ImportError of its own."""
    known: BaseException | None = e
    while known is not None and not isinstance(known, KeyboardInterrupt):
        known = known.__cause__ or known.__context__
    return known is not None


def _say(sentence: str, code: int) -> int:
    try:
        print(f"moe-jax: {sentence}", file=sys.stderr, flush=True)
    except OSError:  # `2>&1 | head`: the exit code tells it
        _silence(sys.stderr)
    return code
