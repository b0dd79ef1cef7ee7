"""A table or figure of a paper, as a page shows it."""

import dataclasses
from collections.abc import Sequence

from moe_jax.report.drawing import Drawing
from moe_jax.report.elements import Bullets, EmbeddedFigure, Paragraph, Table


@dataclasses.dataclass(frozen=True)
class Item:
    """A section of a paper's page."""

    title: str  # "Table 2: compute-optimal models"
    content: Sequence[Table | Paragraph | Bullets | Drawing | EmbeddedFigure]


def not_reproduced(*reasons: str) -> Item:
    """The last section of every page: what is missing, and why."""
    return Item("Not reproduced", [Bullets(reasons)])
