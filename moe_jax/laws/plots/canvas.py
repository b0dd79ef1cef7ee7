"""What all figures of laws share: style, colours that colour-blind readers tell apart, words and logarithmic axes."""

import functools
from collections.abc import Callable, Sequence

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from moe_jax import text
from moe_jax.laws.plots.figure_style import style

# Of Okabe and Ito (2008): told apart with protanopia, deuteranopia and tritanopia, which tests/laws simulate.
BLUE, ORANGE, GREEN = "#0072B2", "#D55E00", "#009E73"
GREY = "0.4"
LOSS = "loss (nats per token)"
FLOPS = "training FLOPs"
WORDS = {
    "N": "parameters N", "D": "tokens D", "G": "granularity G", "E": "expansion rate E", "S": "sparsity S",
    "C": "training FLOPs C",
}  # fmt: skip
_FEW = 8  # values of an axis that each have a tick
_FLOPS = 1e15  # numbers from here on are powers of ten: 1e18, not 1000000T
_CROWDED = 2_000  # points that an SVG holds as a picture


def drawn(draw: Callable[..., Figure]) -> Callable[..., Figure]:
    """Makes a function draw in the common style."""

    @functools.wraps(draw)
    def styled(*args, **options) -> Figure:
        with style():
            return draw(*args, **options)

    return styled


def panels(n: int, *, width: float = 4.1, height: float = 2.9, most: int = 3) -> tuple[Figure, list[Axes]]:
    """n panels, at most `most` side by side."""
    columns = min(n, most)
    rows = -(-n // columns)
    figure = Figure(figsize=(width * columns, 0.4 + height * rows), layout="constrained")
    axes = figure.subplots(rows, columns, squeeze=False).ravel().tolist()
    for unused in axes[n:]:
        unused.remove()
    return figure, axes[:n]


def shades(n: int) -> list:
    """n colours from dark to light that differ in lightness too (viridis without its lightest part)."""
    return colormaps["viridis"](np.linspace(0.0, 0.86, n)).tolist()


def word(symbol: str, column: str = "") -> str:
    """An axis' name, with the column it was read from."""
    name = WORDS.get(symbol, symbol)
    return (name if column in ("", symbol) else f"{name} ({column})").replace("$", r"\$")


def points(ax: Axes, x: np.ndarray, y: np.ndarray, held_out: np.ndarray, colour=BLUE, size: float = 5) -> None:
    """Runs as dots: filled where fitted, hollow where held out."""
    for mask, face, name in ((~held_out, colour, "fitted"), (held_out, "white", "held out")):
        if mask.any():
            crowded = bool(mask.sum() > _CROWDED)
            ax.plot(
                x[mask], y[mask], "o", ms=2 if crowded else size, color=colour, mfc=face, zorder=3,
                rasterized=crowded, label=f"{name} ({mask.sum():,})",
            )  # fmt: skip


def log_x(ax: Axes, values: np.ndarray) -> None:
    """A logarithmic x axis with a tick at each value, where there are few that lie apart."""
    ax.set_xscale("log")
    ticks = np.unique(values)
    span = np.log(ticks[-1] / ticks[0])
    if len(ticks) <= _FEW and (len(ticks) == 1 or np.diff(np.log(ticks)).min() > 0.09 * span):
        ax.set_xticks(ticks, [_tick(v) for v in ticks], fontsize=8)
        ax.minorticks_off()
        return
    decades(ax.xaxis)


def decades(axis, flops: bool = False) -> None:
    """Ticks of a logarithmic axis: at decades, or at 1, 2 and 5 where there is less than two; 30M, not 3·10⁷.

    flops: powers of ten, as for all numbers from 1e15 on."""
    low, high = axis.get_view_interval()
    short_span = high / max(low, 1e-300) < 150
    axis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0) if short_span else (1.0,), numticks=9))
    if short_span or (high < _FLOPS and not flops):
        axis.set_major_formatter(FuncFormatter(lambda value, _: _tick(value, flops)))
    axis.set_minor_formatter(NullFormatter())


def _tick(value: float, flops: bool = False) -> str:
    return text.short(value) if value < _FLOPS and not flops else f"{value:.0e}".replace("e+", "e")


def below(figure: Figure, ax: Axes | Sequence[Axes], ncols: int = 3) -> None:
    """One legend below the panels, of everything that has a label in them."""
    found = {}
    for one in [ax] if isinstance(ax, Axes) else ax:
        for handle, name in zip(*one.get_legend_handles_labels(), strict=True):
            found.setdefault(name, handle)
    figure.legend(found.values(), found, loc="outside lower center", ncols=ncols)
