"""`moe-jax generate`: text from a run's newest checkpoint."""

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from moe_jax.cli import command
from moe_jax.errors import UserError
from moe_jax.text import count

if TYPE_CHECKING:
    from moe_jax.evaluation.generation import Generator

# A terminal obeys control characters, and an untrained model writes any of them.
_CONTROL = {c: "\ufffd" for c in (*range(32), *range(127, 160)) if chr(c) not in "\n\t"}

DESCRIPTION = """Continues a prompt with a run's newest checkpoint. The text goes to standard output as it comes, what
is said of it to standard error. The model has as many positions as it was trained with (data.sequence_length): in a
longer text each token follows from that many before it. On the same devices the same seed gives the same text."""


def main(argv: Sequence[str]) -> None:
    flags = _flags(argv)

    from moe_jax.evaluation import loading
    from moe_jax.evaluation.generation import Generator, Sampling
    from moe_jax.evaluation.run_store import vocabulary_of
    from moe_jax.evaluation.text_stream import TextStream
    from moe_jax.evaluation.without_dropping import restore_without_dropping
    from moe_jax.training.compile_cache import use_compilation_cache

    sampling = Sampling(flags.tokens, 0.0 if flags.greedy else flags.temperature, flags.top_p, flags.seed)
    text = _prompt(flags.prompt)
    use_compilation_cache()
    run = loading.run_of(flags.workdir)
    vocabulary = vocabulary_of(run, flags.store)
    restored = restore_without_dropping(flags.workdir, say=_say)
    generator = Generator(restored, vocabulary.size, run.store.end_of_document)
    prompt = vocabulary.encode(text).tolist()
    generator.check_prompt(prompt)
    for sample in range(flags.samples):
        stream, made = TextStream(vocabulary, prompt), []
        _show(text)
        for token in generator.continuation(prompt, sampling, sample):
            made.append(token)
            _show(stream.add(token).translate(_CONTROL))
        _show(stream.rest().translate(_CONTROL) + "\n")
        of = f"sample {sample + 1} of {flags.samples}: " if flags.samples > 1 else ""
        _say(f"[{of}{_ending(generator, prompt, made)}]")


def _ending(generator: "Generator", prompt: list[int], made: list[int]) -> str:
    """How many tokens there are, why they end, and whether the model saw all of them."""
    ended = made[-1] == generator.end_of_document
    said = f"{count(len(made), 'token')}; {'the model ended the document' if ended else 'as many as --tokens allows'}"
    if max(len(prompt), 1) + len(made) - 1 > (S := generator.positions):
        said += f"; the model has {S:,} positions, so the last tokens follow from the {S:,} before them alone"
    return said


def _flags(argv: Sequence[str]):
    parser = command.parser("generate", DESCRIPTION)
    parser.add_argument("--workdir", required=True, metavar="W/runs/NAME", help="folder or gs:// of the run")
    parser.add_argument("--prompt", required=True, metavar="TEXT", help="- reads it from standard input")
    parser.add_argument("--tokens", type=int, default=200, metavar="N", help="at most this many [200]")
    parser.add_argument("--temperature", type=float, default=0.8, metavar="T", help="0: the most likely token [0.8]")
    parser.add_argument("--top_p", type=float, default=0.95, metavar="P", help="draw from the likeliest tokens [0.95]")
    parser.add_argument("--greedy", action="store_true", help="always the most likely token")
    parser.add_argument("--seed", type=int, default=0, help="of the random numbers [0]")
    parser.add_argument("--samples", type=int, default=1, metavar="N", help="texts, one after the other [1]")
    parser.add_argument("--store", metavar="S", help="where the run's token store is now, for its vocabulary")
    flags = parser.parse_args(argv)
    if flags.samples < 1:
        raise UserError(f"--samples={flags.samples}: must be above 0")
    return flags


def _prompt(given: str) -> str:
    """The prompt's text. Raises UserError where it is no text in UTF-8."""
    try:
        if given == "-":
            return sys.stdin.buffer.read().decode()
        given.encode()  # bytes of the command line that are no UTF-8 come as lone surrogates
    except UnicodeError as e:
        raise UserError("--prompt: is no UTF-8 text") from e
    return given


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


def _show(text: str) -> None:
    print(text, end="", flush=True)
