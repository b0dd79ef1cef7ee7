"""The lines of a text or JSONL file -> documents, each with its offset; what is unusable is skipped for a reason."""

import json
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from moe_jax.data.prepare import streams

MAX_LINE = 2**26  # bytes of a JSONL line
MAX_BLOCK = 2**16  # bytes of a document of a text file


class _Unusable(Exception):
    """The reason why a document is skipped."""


def usable_texts(values: Iterable[Any], skip: Callable[[str], None], field: str) -> Iterator[tuple[int, str]]:
    """(index, text) of each value of `field` that is a text to learn from; calls skip(reason) for each other one."""
    for index, value in enumerate(values):
        try:
            yield index, _usable(value, field)
        except _Unusable as e:
            skip(str(e))


def json_documents(
    lines: streams.Lines, end: int, skip: Callable[[str], None], field: str
) -> Iterator[tuple[int, str]]:
    """(offset, text) of each JSONL document whose line begins before byte `end`; the text is the object's `field`.

    Calls skip(reason) for each line that it leaves out. Raises UserError if the file cannot be read."""
    while (offset := lines.offset) < end and (line := lines.read(MAX_LINE + 1)):
        if len(line) > MAX_LINE:
            lines.drop_rest(line)
            skip("line above 64 MiB")
        elif line.strip():
            try:
                text = _json_text(_without_byte_order_mark(line, offset), field)
            except _Unusable as e:
                skip(str(e))
            else:
                yield offset, text


def text_documents(lines: streams.Lines, end: int, skip: Callable[[str], None]) -> Iterator[tuple[int, str]]:
    """(offset, text) of each block of whole lines that begins before byte `end`; a longer line is cut in blocks.

    Calls skip(reason) for each block that it leaves out. Raises UserError if the file cannot be read."""
    offset, block, in_line = lines.offset, b"", False
    while in_line or lines.offset < end:
        part = lines.read(MAX_BLOCK - len(block))
        in_line = part != b"" and not part.endswith(b"\n")
        block += part
        if part and len(block) < MAX_BLOCK:
            continue
        # The block is full, or the file is at its end.
        cut = len(block) if not in_line else block.rfind(b"\n") + 1 or _whole_characters(block)
        if cut:
            yield from _block_document(block[:cut], offset, skip)
        offset, block = offset + cut, block[cut:]
        if not part:
            return
    if block:
        yield from _block_document(block, offset, skip)


def _json_text(line: bytes, field: str) -> str:
    try:
        record = json.loads(line.decode())
    except UnicodeDecodeError:
        raise _Unusable("not UTF-8") from None
    except RecursionError:
        raise _Unusable("JSON nested too deeply") from None
    except ValueError:
        raise _Unusable("not JSON") from None
    return _usable(record.get(field) if isinstance(record, dict) else None, field)


def _usable(text: Any, field: str) -> str:
    if not isinstance(text, str):
        raise _Unusable(f"no text in {field}")
    if not text:
        raise _Unusable(f"empty {field}")
    try:
        text.encode()
    except UnicodeEncodeError:  # JSON can spell halves of surrogate pairs
        raise _Unusable("not UTF-8") from None
    return _without_nul(text)


def _block_document(block: bytes, offset: int, skip: Callable[[str], None]) -> Iterator[tuple[int, str]]:
    try:
        yield offset, _without_nul(_without_byte_order_mark(block, offset).decode())
    except UnicodeDecodeError:
        skip("not UTF-8")
    except _Unusable as e:
        skip(str(e))


def _without_nul(text: str) -> str:
    if "\0" in text:
        raise _Unusable("NUL character")
    return text


def _without_byte_order_mark(data: bytes, offset: int) -> bytes:
    return data.removeprefix(b"\xef\xbb\xbf") if not offset else data


def _whole_characters(block: bytes) -> int:
    """The length of the block without the first bytes of a UTF-8 character that continues after it."""
    for back in range(1, min(4, len(block)) + 1):
        if block[-back] & 0xC0 != 0x80:  # not a continuation byte
            needs = 1 + (block[-back] >= 0xC0) + (block[-back] >= 0xE0) + (block[-back] >= 0xF0)
            return len(block) if needs <= back else len(block) - back
    return len(block)
