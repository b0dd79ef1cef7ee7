"""JSON that is not a record a line -> documents: an array of records, or records of several lines each.

Such a file is read value by value in bounded memory. A broken value is an error of the whole file: unlike a line's, its
end is unknown, and so is the beginning of the next.
"""

import codecs
import json
import re
from collections.abc import Callable, Iterator
from typing import Any

from moe_jax.data.prepare.documents import MAX_LINE, usable_texts
from moe_jax.data.prepare.streams import Lines
from moe_jax.errors import UserError

_PART = 2**20  # bytes that are read at once
_SPACE = re.compile(r"[ \t\r\n]*")


def json_value_documents(lines: Lines, skip: Callable[[str], None], field: str) -> Iterator[tuple[int, str]]:
    """(index, text) of each record, whose `field` is the text. Bytes that are not UTF-8 cost the record they are in.

    Calls skip(reason) for each record that it leaves out. Raises UserError if the file cannot be read."""
    records = _values(_Text(lines))
    return usable_texts((r.get(field) if isinstance(r, dict) else None for r in records), skip, field)


def _values(text: "_Text") -> Iterator[Any]:
    """The elements of an array that is all of the text, or values that follow one another."""
    if text.next_character() != "[":
        while text.next_character():
            yield text.value()
        return
    text.at += 1
    if text.next_character() != "]":
        yield text.value()
        while text.next_character() == ",":
            text.at += 1
            yield text.value()
    if text.next_character() != "]":
        raise text.broken("the array goes on without a comma, or the file was cut")
    text.at += 1
    if text.next_character():
        raise text.broken("there is more after the end of the array")


class _Text:
    """The text of a file, of which only the part from `at` to the end of the next value is kept."""

    def __init__(self, lines: Lines):
        self.at = 0
        self._lines, self._kept, self._n_values = lines, "", 0
        self._decode = codecs.getincrementaldecoder("utf-8-sig")("surrogateescape").decode

    def next_character(self) -> str:
        """The next character that is not white space, which `at` then points to; "" at the end of the file."""
        while True:
            self.at = _SPACE.match(self._kept, self.at).end()
            if self.at < len(self._kept):
                return self._kept[self.at]
            if not self._read_on():
                return ""

    def value(self) -> Any:
        """The next JSON value; `at` then points behind it. Raises UserError if there is none, or none so short."""
        self.next_character()
        while True:
            reason = ""
            try:
                value, end = json.JSONDecoder().raw_decode(self._kept, self.at)
            except RecursionError:
                raise self.broken("it is nested too deeply") from None
            except ValueError as e:
                reason = e.msg if isinstance(e, json.JSONDecodeError) else str(e)
            if len(self._kept) - self.at > MAX_LINE:
                raise self.broken("it is above 64 MiB")
            # A value at the very end of what is kept may go on, as 1 may be the beginning of 12.
            if reason or end == len(self._kept):
                if self._read_on():
                    continue
                if reason:
                    raise self.broken(reason)
            self.at = end
            self._n_values += 1
            return value

    def broken(self, reason: str) -> UserError:
        """The error that the JSON is broken for the reason after the values so far."""
        return UserError(
            f"{self._lines.path} is damaged: its JSON cannot be read after {self._n_values:,} whole values ({reason}); "
            "mend it, or write one record a line (.jsonl), where a broken record costs itself alone"
        )

    def _read_on(self) -> bool:
        """Reads as much again as is kept, so that a long value is parsed few times; False at the end of the file."""
        wanted, parts = max(_PART, len(self._kept) - self.at), []
        while wanted > 0 and (part := self._lines.read(wanted)):
            parts.append(part)
            wanted -= len(part)
        more = self._decode(b"".join(parts), final=wanted > 0)
        self._kept, self.at = self._kept[self.at :] + more, 0
        return bool(parts or more)
