"""`moe-jax reproduce PAPER`: a paper's tables and figures, recomputed, on one page."""

import importlib
import os
from collections.abc import Sequence

from moe_jax import errors
from moe_jax.cli import command, outputs
from moe_jax.report import papers

_DESCRIPTION = """Compares a paper's printed numbers with what follows from its coefficients, from third-party losses
and from your own runs.

  moe-jax reproduce krajewski2024                    reproduced/krajewski2024/page.html and figures
  moe-jax reproduce krajewski2024 --workdir W        with the runs of W/results.csv too

Third-party losses are read from the folder in MOE_JAX_REFERENCE (default ../shared/reference beside the checkout)."""


def main(argv: Sequence[str]) -> int:
    parser = command.parser("reproduce", _DESCRIPTION)
    parser.add_argument("paper", choices=papers.PAPERS, metavar="PAPER", help=", ".join(papers.PAPERS))
    parser.add_argument("--workdir", help="a sweep of yours, whose results.csv is compared with the paper")
    parser.add_argument("--out", help="a folder (default reproduced/PAPER, with --workdir W/reproduced/PAPER)")
    flags = parser.parse_args(argv)

    os.environ.setdefault("JAX_PLATFORMS", "cpu")  # fits need float64 and no accelerator
    from etils import epath

    from moe_jax import files
    from moe_jax.report.papers.page import page
    from moe_jax.report.papers.sources import Sources, finished, reference_folder

    paper = importlib.import_module(f"moe_jax.report.papers.{flags.paper}")
    ours = finished(flags.workdir, paper.NEEDS) if flags.workdir else None
    sources = Sources(flags.paper, reference_folder(), ours, flags.workdir or "our runs")
    folder = epath.Path(flags.out or os.path.join(flags.workdir or "", "reproduced", flags.paper))
    with outputs.writing(str(folder), "--out"):
        (folder / "figures").mkdir(parents=True, exist_ok=True)

    sentences, found = paper.reproduce(sources)
    items, drawn = _drawn(found, folder / "figures")
    made = page(flags.paper, paper.TITLE, sources.printed["source"], sentences, items)
    files.write_atomic(folder / "page.html", made.encode())
    for sentence in sentences:
        print(f"- {sentence}")
    print(f"page: {folder / 'page.html'} ({drawn} figures, also in {folder / 'figures'})")
    return errors.DONE


def _drawn(found, folder) -> tuple[list, int]:
    """The items with their figures drawn and saved in `folder`, and how many figures these are."""
    from moe_jax.report.drawing import Drawing, save
    from moe_jax.report.papers.item import Item

    items, drawn = [], 0
    for item in found:
        print(item.title, flush=True)  # one by one, for some take seconds
        drawn += sum(isinstance(part, Drawing) for part in item.content)
        content = [save(part, folder) if isinstance(part, Drawing) else part for part in item.content]
        items.append(Item(item.title, content))
    return items, drawn
