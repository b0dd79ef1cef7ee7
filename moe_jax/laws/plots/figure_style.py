"""How figures look, and the bytes of one: PNG or SVG, the same for the same data.

Figures are made without pyplot: no window system, no state between two of them.
"""

import io
from typing import Any

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

STYLE = {
    "font.size": 9, "axes.titlesize": 9.5, "axes.labelsize": 9, "legend.fontsize": 8.5, "axes.spines.top": False,
    "axes.spines.right": False, "axes.grid": True, "grid.alpha": 0.25, "grid.linewidth": 0.6, "lines.linewidth": 1.4,
    "lines.markersize": 5, "legend.frameon": False, "svg.hashsalt": "moe_jax", "axes.axisbelow": True,
}  # fmt: skip


def style() -> Any:
    """The context in which a figure is made, so that all look alike."""
    return matplotlib.rc_context(STYLE)


def to_bytes(figure: Figure, kind: str) -> bytes:
    """The figure as `svg` or `png`; the same bytes for the same data."""
    out = io.BytesIO()
    with style():
        if figure.get_layout_engine() is not None:  # once: the layout costs as much as the drawing
            figure.draw_without_rendering()
            figure.set_layout_engine(None)
        figure.set_dpi(160)
        # Not Figure.savefig: before it draws, it draws once to nowhere, for a layout that is done here.
        if kind == "svg":
            FigureCanvasSVG(figure).print_svg(out, metadata={"Date": None})
        else:
            FigureCanvasAgg(figure).print_png(out)
    return out.getvalue()
