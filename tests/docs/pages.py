"""The fenced code of a Markdown page: files, whose first line names them (`# my_router.py`), and shell commands."""

import re
from typing import NamedTuple

_BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


class Code(NamedTuple):
    """The code of a page, in the page's order."""

    files: dict[str, str]  # name -> content
    commands: list[str]  # lines of the sh blocks


def code_of(page: str) -> Code:
    """Every fenced block of a page. Raises AssertionError where a block is neither a named file nor commands."""
    code = Code({}, [])
    for language, content in _BLOCK.findall(page):
        if language == "sh":
            code.commands.extend(content.splitlines())
            continue
        name = re.match(r"# (\w+\.py)\n", content)
        assert language == "python" and name, f"a block of {language} begins with {content[:60]!r}"
        code.files[name[1]] = content
    return code
