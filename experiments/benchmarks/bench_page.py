"""Puts the tables of `make bench` into README.md, and the file that they come from beside it.

    python -m experiments.benchmarks.bench_page build/bench.json

A benchmark's tables stand between `<!-- bench: NAME -->` and `<!-- end -->`.
"""

import json
import re
import sys
from pathlib import Path
from typing import Any

from experiments.benchmarks.results import Results

FOLDER = Path(__file__).parent
PAGE, FIGURES = FOLDER / "README.md", FOLDER / "bench.json"
PACKAGES = ("python", "jax", "torch", "transformers")
_BLOCK = re.compile(r"(<!-- bench: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def main() -> None:
    if len(sys.argv) != 2:
        raise SystemExit("usage: python -m experiments.benchmarks.bench_page FILE")
    measured = json.loads(Path(sys.argv[1]).read_text())
    FIGURES.write_text(json.dumps(measured, indent=1, ensure_ascii=False) + "\n")
    PAGE.write_text(filled(PAGE.read_text(), measured))


def filled(page: str, measured: dict[str, Any]) -> str:
    """The page with the tables of the benchmarks in their places."""

    def block(found: re.Match) -> str:
        begin, name, end = found.groups()
        return f"{begin}{tables(measured[name])}\n{end}"

    return _BLOCK.sub(block, page)


def tables(measured: dict[str, Any]) -> str:
    """A benchmark's command, machine and tables in Markdown."""
    machine = measured["machine"]
    versions = ", ".join(f"{name} {machine[name]}" for name in PACKAGES if name in machine)
    said = (
        f"`{measured['command']}`, {measured['date']}, {measured['seconds']} s; {machine['processor']}; {versions}.\n"
    )
    return "\n".join([said, *(Results(**table).markdown() for table in measured["tables"])])


if __name__ == "__main__":
    main()
