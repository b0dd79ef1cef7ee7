"""Long texts cut at line ends, for a trainer that drops long sentences."""

from collections.abc import Iterator


def segments(text: str, characters: int) -> Iterator[str]:
    """The text in parts of at most `characters`, each cut after the last line end in it, if it has one."""
    start = 0
    while start < len(text):
        end = start + characters
        if end < len(text):
            end = text.rfind("\n", start, end) + 1 or end
        yield text[start:end]
        start = end
