"""The page of a sweep: which figures it has, which sections, and their facts; templates/sweep.html lays them out."""

import functools
import importlib.metadata
import shlex
import time
from collections.abc import Callable, Mapping

from matplotlib.figure import Figure

from moe_jax.report import downstream, figures, findings, loss_curves, routing_figure
from moe_jax.report.drawing import Drawing
from moe_jax.report.elements import EmbeddedFigure
from moe_jax.report.panels import spread_over
from moe_jax.report.reading import SweepData
from moe_jax.report.render import render
from moe_jax.report.sections import domains, granularity, law, losses, predictions, routing, runs, summary, tasks
from moe_jax.sweep.routing_record import RoutingRecord

MOST_ROUTINGS = 4  # runs at most whose loads are drawn


def drawings(data: SweepData) -> dict[str, Drawing]:
    """The page's figures by name, in its order; only those that there are data for."""
    drawn = data.law.law if data.law is not None and data.law.drawable else None
    found: list[tuple[str, str, str, Callable[[], Figure]]] = []
    if data.curves:
        shown = f"{len(data.curves)} of {len(data.manifest.runs)} runs, from {loss_curves.EARLIEST:.0%} of the longest"
        caption = f"{shown} on. Faint: as logged. Strong: the mean over ±15% of the tokens."
        draw = functools.partial(loss_curves.loss_curves, data.curves)
        found.append(("loss_curves", caption, "training loss over tokens", draw))
    lines = "curves: the law with its interval" if drawn else "lines join neighbours"
    for axis in findings.AXES:
        if any(getattr(cell, axis) is not None for cell in data.grid):
            alt = f"held-out loss against {axis}"
            draw = functools.partial(figures.loss_against, data.grid, axis, drawn)
            found.append((f"loss_against_{axis}", f"Held-out loss against {axis}; {lines}.", alt, draw))
    if findings.granularity_effects(data.grid):
        lines = "curves: the law" if drawn else "lines join neighbours"
        caption = f"The effect of G alone: loss minus the loss at the coarsest G of the same N and D; {lines}."
        draw = functools.partial(figures.granularity_effect, data.grid, drawn)
        found.append(("granularity", caption, "effect of G", draw))
    if data.law is not None and data.law.fit is not None:
        labels = {
            symbol: findings.LABELS[symbol] if findings.AXES.get(symbol) == column else f"{symbol}: {column}"
            for symbol, column in data.law.fit.rows.sources.items()
        }
        caption = "Fit against data, and the residuals along the law's axes. A trend there is a misfit of the law."
        draw = functools.partial(figures.fit_against_data, data.law.fit, labels)
        found.append(("fit", caption, "fit against data", draw))
    for name, checked in data.rate_laws.items():
        if checked.fit is None:
            continue
        caption = f"The best value of each cell beside that of {checked.law.name}. A cell's best is interpolated."
        draw = functools.partial(figures.best_values, checked.fit)
        found.append((f"rates_{name}", caption, f"measured best values against {checked.law.name}", draw))
    if any(c.measured is not None for c in data.predictions):
        caption = (
            "Measured minus predicted loss, and the predicted intervals. Hollow: the run was finished before it was "
            "predicted."
        )
        draw = functools.partial(figures.predictions, data.predictions)
        found.append(("predictions", caption, "predictions against measurements", draw))
    scored, names = tasks.scored(data.rows)
    if names:
        caption = "Bits per byte of the right answers against the held-out loss of each run."
        draw = functools.partial(downstream.against_loss, scored, names)
        found.append(("tasks", caption, "downstream scores against held-out loss", draw))
    for record in spread_over(_choosing_tokens(data), MOST_ROUTINGS):
        draw = functools.partial(routing_figure.expert_loads, record)
        caption = routing_figure.caption(record)
        found.append((f"routing_{record.name}", caption, f"loads of the experts of {record.name}", draw))
    return {name: Drawing(name, caption, alt, draw) for name, caption, alt, draw in found}


def page(data: SweepData, embedded: Mapping[str, EmbeddedFigure]) -> str:
    """The document, HTML. embedded: its figures by name, those that were drawn."""
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(data.snapshot.time))
    workdir = shlex.quote(data.workdir)
    title = f"Sweep {data.manifest.sweep}"
    return render(
        "sweep.html",
        title=title,
        heading=title,
        provenance=f"{data.workdir} · {made} · moe_jax {importlib.metadata.version('moe_jax')}",
        links=_sections(data),
        figures=embedded,
        loss_figures=[embedded[name] for axis in findings.AXES if (name := f"loss_against_{axis}") in embedded],
        tiles=summary.tiles(data.snapshot, data.rows, data.law),
        sentences=summary.sentences(data.snapshot, data.rows, data.grid, data.law, data.predictions, data.routings),
        setup=runs.setup(data.manifest, data.rows, data.first_run),
        runs=runs.runs(data.manifest, data.snapshot, data.rows, data.left_out),
        losses=losses.losses(data.rows, data.grid) if data.grid else None,
        domains=domains.domains(data.rows),
        tasks=tasks.tasks(data.rows),
        granularity=granularity.granularity(data.rows, data.grid) if data.grid else None,
        law=law.law(data.law) if data.law is not None else None,
        law_error=data.law_error,
        rates={name: law.law(checked) for name, checked in data.rate_laws.items()},
        rate_errors=data.rate_law_errors,
        commands=f"moe-jax collect --workdir {workdir} && moe-jax fit --workdir {workdir}",
        predictions=predictions.predicted(data.predictions) if data.predictions else None,
        predictions_error=data.predictions_error,
        routing=routing.routing(data.routings, data.damaged_routings) if _inspected(data) else None,
        routing_figures=[figure for name, figure in embedded.items() if name.startswith("routing_")],
        routings_drawn=_routings_drawn(data),
    )


def _inspected(data: SweepData) -> bool:
    return bool(data.routings or data.damaged_routings)


def _choosing_tokens(data: SweepData) -> list[RoutingRecord]:
    """The inspected runs whose experts may have different loads: those in which tokens choose."""
    return [record for record in data.routings if not record.experts_choose]


def _routings_drawn(data: SweepData) -> str | None:
    """Which runs' loads are drawn, where not all are."""
    n = len(_choosing_tokens(data))
    return f"Drawn are {MOST_ROUTINGS} of {n:,} inspected runs, evenly spaced by size." if n > MOST_ROUTINGS else None


def _sections(data: SweepData) -> dict[str, str]:
    """Anchor -> title of the sections that there are data for, in the page's order."""
    titles = {
        "summary": "Summary",
        "setup": "Setup",
        "runs": "Runs",
        "curves": "Loss curves",
        "losses": "Losses",
        "domains": "Losses on other stores",
        "tasks": "Downstream tasks",
        "axes": "Loss against N, D and G",
        "granularity": "Granularity",
        "law": "Fitted law",
        "rates": "Learning rates and batches",
        "predictions": "Predictions",
        "routing": "Routing",
    }
    absent = set()
    if not data.curves:
        absent |= {"curves"}
    if not data.grid:
        absent |= {"losses", "axes", "granularity"}
    if domains.domains(data.rows) is None:
        absent |= {"domains"}
    if not tasks.scored(data.rows)[1]:
        absent |= {"tasks"}
    if not data.predictions and data.predictions_error is None:
        absent |= {"predictions"}
    if not data.rate_laws and not data.rate_law_errors:
        absent |= {"rates"}
    if not _inspected(data):
        absent |= {"routing"}
    return {anchor: title for anchor, title in titles.items() if anchor not in absent}
