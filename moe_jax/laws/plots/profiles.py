"""The profile of a coefficient."""

import pandas as pd
from matplotlib.figure import Figure

from moe_jax.laws.diagnostics import DEVIANCE
from moe_jax.laws.plots import canvas


@canvas.drawn
def profile(table: pd.DataFrame, name: str, level: float = 0.8) -> Figure:
    """The deviance along a coefficient, with the accepted range shaded; table: from laws.profile."""
    figure, (ax,) = canvas.panels(1, width=4.4, height=2.9)
    kept = table["deviance"] <= DEVIANCE[level]
    ax.plot(table["value"], table["deviance"], "o-", ms=3, color=canvas.BLUE)
    ax.axhline(DEVIANCE[level], color="0.6", lw=1, ls="--")
    ax.fill_between(
        table["value"], 0, 1, where=kept, transform=ax.get_xaxis_transform(), color=canvas.BLUE, alpha=0.15, lw=0
    )
    ax.set(xlabel=name, ylabel="deviance", ylim=(0, 10 * DEVIANCE[level]), title=f"accepted at {level:.0%}: shaded")
    return figure
