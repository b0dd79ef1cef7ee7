"""Downstream scores beside the loss: which tasks runs were scored on, and what sparsity does to a score at equal loss.

abnar2025 (figures 5 and 10) asks whether a sparser model of the same loss does worse on a task. Here each task's bits
per byte are fitted by least squares as a + b · eval_loss + c · S over the runs; c is the effect of sparsity S."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from moe_jax.laws.plots.figure_style import style
from moe_jax.report.panels import MOST_PANELS, add_legend, colour_by, row_of_panels, shared_labels, spread_over
from moe_jax.text import short

BITS, ACCURACY = "_bits_per_byte", "_accuracy"  # columns of a task end in them (evaluation/tasks/metrics.py)
_FREE = 3  # coefficients of a task's fit


@dataclasses.dataclass(frozen=True)
class Effect:
    """What sparsity does to a task at equal loss."""

    task: str
    runs: int
    slope: float  # c: bits per byte more from S = 0 to S = 1
    stderr: float  # of the slope, by the residuals

    @property
    def sentence(self) -> str:
        size = f"{abs(self.slope):.3f} ± {self.stderr:.3f} bits/byte"
        if abs(self.slope) < 2 * self.stderr:
            return f"{self.task}: no effect of sparsity at equal loss can be told ({size}, {self.runs} runs)."
        word = "more" if self.slope > 0 else "less"
        return f"{self.task}: a sparser run of the same loss needs {word}, {size} from S = 0 to 1 ({self.runs} runs)."


def tasks(columns: Sequence[str]) -> list[str]:
    """The tasks that runs were scored on, by the columns of their results."""
    return [c.removesuffix(BITS) for c in columns if c.endswith(BITS) and c != BITS]


def effects(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> list[Effect]:
    """The effect of sparsity on each task for which runs of two losses and two sparsities, and one run more than the
    fit has coefficients, were scored."""
    found = []
    for name in names:
        x_nx3, y_n = _points(rows, name)
        if len(y_n) <= _FREE or np.linalg.matrix_rank(x_nx3) < _FREE:
            continue
        beta = np.linalg.lstsq(x_nx3, y_n, rcond=None)[0]
        variance = ((y_n - x_nx3 @ beta) ** 2).sum() / (len(y_n) - _FREE)
        stderr = math.sqrt(variance * np.linalg.inv(x_nx3.T @ x_nx3)[2, 2])
        found.append(Effect(name, len(y_n), float(beta[2]), stderr))
    return found


def against_loss(rows: Sequence[Mapping[str, Any]], names: Sequence[str]) -> Figure:
    """Bits per byte of the right answers against the held-out loss, a panel a task, coloured by sparsity."""
    shown = spread_over(names, MOST_PANELS)
    colours = colour_by([_sparsity(row) for row in rows if any(_has(row, name) for name in shown)])
    with style():
        figure, axes = row_of_panels(len(shown), share=False)
        for ax, name in zip(axes, shown, strict=True):
            for sparsity, colour in colours.items():
                points = [
                    (row["eval_loss"], row[name + BITS])
                    for row in rows
                    if _has(row, name) and _sparsity(row) == sparsity
                ]
                ax.plot(*zip(*sorted(points), strict=True), "o", color=colour) if points else None
            ax.set_title(name)
        shared_labels(figure, "held-out loss (nats/token)", "right answers (bits/byte)")
        looks = [
            (f"S = {short(s)}", {"color": c, "marker": "o", "linestyle": "none"})
            for s, c in spread_over([*colours.items()], 9)
        ]
        add_legend(figure, looks)
        return figure


def _points(rows: Sequence[Mapping[str, Any]], name: str) -> tuple[np.ndarray, np.ndarray]:
    """(1, loss, S) and bits per byte of each run that was scored."""
    scored = [row for row in rows if _has(row, name)]
    x_nx3 = np.array([(1.0, row["eval_loss"], _sparsity(row)) for row in scored]).reshape(-1, _FREE)
    return x_nx3, np.array([row[name + BITS] for row in scored], float)


def _has(row: Mapping[str, Any], name: str) -> bool:
    value = row.get(name + BITS)
    return value is not None and not math.isnan(value)


def _sparsity(row: Mapping[str, Any]) -> float:
    return float(row["sparsity"])
