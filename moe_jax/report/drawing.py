"""A figure on its way to a page: drawn, saved as a PNG beside the page, embedded as an SVG."""

import dataclasses
from collections.abc import Callable

from etils import epath
from matplotlib.figure import Figure

from moe_jax import files
from moe_jax.laws.plots.figure_style import to_bytes
from moe_jax.report.elements import EmbeddedFigure


@dataclasses.dataclass(frozen=True)
class Drawing:
    """A figure that is yet to be drawn."""

    name: str  # of the PNG, without its suffix
    caption: str
    alt: str
    draw: Callable[[], Figure]


def save(drawing: Drawing, folder: epath.Path) -> EmbeddedFigure:
    """Draws the figure and writes folder/NAME.png; gives what the page embeds."""
    figure = drawing.draw()
    files.write_atomic(folder / f"{drawing.name}.png", to_bytes(figure, "png"))
    return EmbeddedFigure(to_bytes(figure, "svg"), drawing.caption, drawing.alt)
