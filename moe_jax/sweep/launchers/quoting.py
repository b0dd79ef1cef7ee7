"""Quotes arguments so that they pass through shells, YAML, Kubernetes and gcloud unchanged."""

import itertools
import shlex
from collections.abc import Sequence


def container_command(words: Sequence[str]) -> str:
    """Words as one line for the bash of a container whose manifest is YAML.

    Kubernetes replaces $(NAME) and $$ in a container's command, and YAML breaks lines at characters that a shell
    ignores. So the line has printable ASCII only, and no $ but that of $'…'."""
    return " ".join(_word(word) for word in words)


def _word(word: str) -> str:
    if word.isascii() and word.isprintable() and "$" not in word:
        return shlex.quote(word)
    return "$'" + "".join(_escaped(byte) for byte in word.encode("utf-8", "surrogateescape")) + "'"


def _escaped(byte: int) -> str:
    char = chr(byte)
    return char if byte < 127 and char.isprintable() and char not in "\\'$" else f"\\x{byte:02x}"


def gcloud_dict(values: dict[str, str]) -> str:
    """The value KEY=VALUE,… of a gcloud flag, with another delimiter where a value has a comma (`gcloud topic
    escaping`)."""
    pairs = [f"{key}={value}" for key, value in values.items()]
    if not any("," in pair for pair in pairs):
        return ",".join(pairs)
    delimiter = next(d for d in map("<{}>".format, itertools.count()) if not any(d in pair for pair in pairs))
    return f"^{delimiter}^{delimiter.join(pairs)}"
