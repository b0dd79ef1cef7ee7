"""Long texts in pieces that end at lines, for tokenizers whose time grows faster than their input."""

from collections.abc import Iterator


def segments(text: str, characters: int) -> Iterator[str]:
    """The text in parts of at most so many characters, cut after a line's end where there is one."""
    start = 0
    while start < len(text):
        end = start + characters
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end
