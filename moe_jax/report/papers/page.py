"""The page of a paper; templates/paper.html lays it out."""

import importlib.metadata
import time
from collections.abc import Sequence

from moe_jax.report.papers.item import Item
from moe_jax.report.render import render


def page(paper: str, heading: str, source: str, sentences: Sequence[str], items: Sequence[Item]) -> str:
    """The document, HTML. source: the paper's reference; sentences: its summary; the figures of items are embedded."""
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime())
    anchored = {f"item{number}": item for number, item in enumerate(items)}
    return render(
        "paper.html",
        title=f"{paper}, reproduced",
        heading=heading,
        provenance=f"{source} · {made} · moe_jax {importlib.metadata.version('moe_jax')}",
        links={anchor: item.title.partition(":")[0] for anchor, item in anchored.items()},
        sentences=sentences,
        items=anchored,
    )
