"""A table or figure of a paper, as a page shows it."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from matplotlib.figure import Figure


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure and what stands under it. name: of its file."""

    name: str
    caption: str
    figure: Figure


@dataclasses.dataclass(frozen=True)
class Item:
    """One table or figure. content: html elements, None for nothing, and Drawings, in their order."""

    title: str  # "Table 2: compute-optimal models"
    content: Sequence[Any]

    @property
    def drawings(self) -> list[Drawing]:
        return [part for part in self.content if isinstance(part, Drawing)]
