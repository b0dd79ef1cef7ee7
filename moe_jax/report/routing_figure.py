"""The figure of a run's routing: the load of every expert in each layer, before training and after."""

import math

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from moe_jax.laws.plots.figure_style import style
from moe_jax.report.panels import BLUE, MOST_PANELS, add_legend, row_of_panels, shared_labels, spread_over
from moe_jax.sweep.routing_record import RoutingRecord

_BEFORE = "0.55"
_MARKED = 32  # experts at most that get a marker each


def expert_loads(routing: RoutingRecord) -> Figure:
    """Load over the mean against the experts by their load, most first; a panel for each layer, at most MOST_PANELS
    evenly spaced ones, with one y axis."""
    layers = [*enumerate(zip(routing.initial, routing.trained, strict=True), 1)]
    with style():
        shown = spread_over(layers, MOST_PANELS)
        figure, axes = row_of_panels(len(shown))
        marker = "." if routing.n_experts <= _MARKED else ""
        looks = [
            ("before training", {"color": _BEFORE, "linestyle": "--", "marker": marker}),
            ("after", {"color": BLUE, "marker": marker}),
        ]
        for ax, (number, pair) in zip(axes, shown, strict=True):
            for layer, (_, look) in zip(pair, looks, strict=True):
                loads = [load / (layer.mean_load or 1) for load in sorted(layer.load, reverse=True)]
                ax.plot(range(1, len(loads) + 1), loads, **look)
            ax.axhline(1, color="0.4", linewidth=0.8)
            unused = f", {pair[1].unused} unused" if pair[1].unused else ""
            ax.set_title(f"layer {number} of {len(layers)}{unused}")
            ax.xaxis.set_major_locator(MaxNLocator(5, integer=True))
        most = max(1.0, *(layer.max_over_mean for _, pair in shown for layer in pair))
        axes[0].set_ylim(-0.02 * most, 1.06 * most)  # a load of 0 stays above the axis
        shared_labels(figure, "experts, by their load", "tokens of the expert ÷ mean")
        looks.append(("balanced", {"color": "0.4", "linewidth": 0.8}))
        add_legend(figure, looks)
        return figure


def caption(routing: RoutingRecord) -> str:
    """What the figure shows, of how many tokens."""
    n = len(routing.trained)
    layers = f"{MOST_PANELS} of {n} layers" if n > MOST_PANELS else "every layer"
    entropies = [layer.entropy for layer in routing.trained]
    entropy = " to ".join(dict.fromkeys(f"{x:.2f}" for x in (min(entropies), max(entropies))))
    return (
        f"{routing.name}: load of the {routing.n_experts} experts in {layers}, of {routing.tokens:,} held-out tokens "
        f"with top_k = {routing.top_k}. The trained router's entropy is {entropy} of at most "
        f"{math.log(routing.n_experts):.2f} nats."
    )
