"""`moe-jax report --workdir W`: what a sweep shows, on one page without outside resources -> W/report.html."""

import dataclasses
import functools
import importlib.metadata
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from moe_jax import (
    collect,
    command,
    errors,
    figures,
    files,
    findings,
    fitcheck,
    html,
    predictions,
    results,
    sections,
    status,
)  # fmt: skip
from moe_jax.errors import UserError
from moe_jax.figures import Curve
from moe_jax.findings import Cell
from moe_jax.fitcheck import CheckedLaw
from moe_jax.html import Html, h
from moe_jax.manifest import Manifest, PlannedRun
from moe_jax.predictions import Checked
from moe_jax.results import Row
from moe_jax.status import Snapshot
from moe_jax.tables import number
from moe_jax.workdir import Workdir

_CURVES = 60  # runs whose loss curves are drawn
_POINTS = 400  # of a curve


@dataclasses.dataclass(frozen=True)
class Sweep:
    """All that the page shows, read once."""

    workdir: str
    manifest: Manifest
    snapshot: Snapshot
    rows: list[Row]
    left_out: list[collect.LeftOut]
    grid: list[Cell]
    curves: list[Curve]
    first_run: dict[str, Any]  # run.json of the first run that began
    law: CheckedLaw | None
    law_trouble: str | None  # why law.json could not be read
    predictions: list[Checked]  # prediction.csv beside what came out
    predictions_trouble: str | None


def read(work: Workdir) -> Sweep:
    """Raises UserError where there is no sweep."""
    manifest = work.existing_manifest()
    snapshot, collected = status.snapshot(work), collect.gather(work, manifest)
    law, trouble = None, None
    try:
        law = fitcheck.check(work.path / "law.json", results.to_csv(collected.rows))
    except UserError as e:
        trouble = str(e)
    checked, not_read = [], None
    try:
        if (stated := work.path / "prediction.csv").exists():
            checked = predictions.check(predictions.read(stated), collected.rows)
    except UserError as e:
        not_read = str(e)
    return Sweep(
        workdir=str(work.path),
        manifest=manifest,
        snapshot=snapshot,
        rows=collected.rows,
        left_out=collected.left_out,
        grid=findings.cells(collected.rows),
        curves=_curves(work, manifest, snapshot),
        first_run=_first_run(work, manifest, snapshot),
        law=law,
        law_trouble=trouble,
        predictions=checked,
        predictions_trouble=not_read,
    )


def _curves(work: Workdir, manifest: Manifest, snapshot: Snapshot) -> list[Curve]:
    """Loss curves of the runs that have begun, evenly chosen where there are many."""
    lines = {line.name: line for line in snapshot.lines}
    begun = [run for run in manifest.runs if lines[run.name].step > 0 or lines[run.name].state == "damaged"]
    chosen = [begun[i] for i in np.unique(np.linspace(0, len(begun) - 1, min(_CURVES, len(begun))).astype(int))]

    def curve(run: PlannedRun) -> Curve:
        steps = work.run_dir(run.name).read_metrics()
        points = [
            (t, x) for s in steps if (t := number(s.get("tokens"))) and (x := number(s.get("loss"))) and t > 0 < x
        ]
        tokens, losses = np.array(points, np.float64).reshape(-1, 2).T
        kept = np.unique(np.geomspace(1, max(len(points), 1), _POINTS).astype(int) - 1) if points else slice(0)
        line, moe = lines[run.name], run.config.moe
        N, G = run.counts["n_total_nonemb"], moe.granularity if moe else None
        return Curve(N, run.counts["tokens"], G, tokens[kept], losses[kept], line.state, line.eval_loss)

    with ThreadPoolExecutor(collect.READERS) as pool:
        return [c for c in pool.map(curve, chosen) if len(c.tokens)]


def _first_run(work: Workdir, manifest: Manifest, snapshot: Snapshot) -> dict[str, Any]:
    for run, line in zip(manifest.runs, snapshot.lines, strict=True):
        if line.attempts:
            try:
                return work.run_dir(run.name).run() or {}
            except files.DamagedFile:
                continue
    return {}


@dataclasses.dataclass(frozen=True)
class Picture:
    """A figure of the page; `draw` makes it, so that one that the data do not carry is left out with its reason."""

    name: str  # of the file under W/figures
    caption: str
    alt: str
    draw: Callable[[], Figure]


def pictures(sweep: Sweep) -> dict[str, Picture]:
    """The page's figures by name; only those that there are data for."""
    law = sweep.law.law if sweep.law is not None and sweep.law.drawable else None
    through = "the law drawn through with its interval" if law else "lines join neighbours"
    made = []
    if sweep.curves:
        text = (
            f"{len(sweep.curves)} of {len(sweep.manifest.runs)} runs, from {figures.EARLIEST:.0%} of the longest on. "
            "Faint: as logged. Strong: the mean over ±15% of the tokens."
        )
        made.append(
            Picture("loss_curves", text, "training loss over tokens", lambda: figures.loss_curves(sweep.curves))
        )
    for axis in findings.AXES:
        if any(getattr(cell, axis) is not None for cell in sweep.grid):
            text = f"Held-out loss against {axis}; {through}."
            draw = functools.partial(figures.loss_against, sweep.grid, axis, law)
            made.append(Picture(f"loss_against_{axis}", text, f"held-out loss against {axis}", draw))
    if findings.granularity_effects(sweep.grid):
        lines = "lines: the law" if law else "lines join neighbours"
        text = f"The effect of G alone: loss less that of the coarsest G of the same N and D; {lines}."
        made.append(Picture("granularity", text, "effect of G", lambda: figures.granularity_effect(sweep.grid, law)))
    if sweep.law is not None and (comparison := sweep.law.comparison) is not None:
        text = (
            "Fit against data, and what the law misses along its axes. A trend is something that the law does not say."
        )
        made.append(Picture("fit", text, "fit against data", lambda: figures.fit_against_data(comparison)))
    if any(c.measured is not None for c in sweep.predictions):
        text = (
            "What was measured less what had been predicted, and the predicted intervals. Hollow: the run was done "
            "when it was predicted."
        )
        draw = functools.partial(figures.predictions, sweep.predictions)
        made.append(Picture("predictions", text, "predictions against measurements", draw))
    return {picture.name: picture for picture in made}


def page(sweep: Sweep, drawn: dict[str, Html]) -> str:
    """The document; `drawn` are the figures' elements by name, those that there are."""
    said = sections.in_short(sweep.snapshot, sweep.rows, sweep.grid, sweep.law, sweep.predictions)
    parts: list[tuple[str, str, list[Any]]] = [
        ("short", "In short", [html.bullets(said)]),
        ("run", "What was run", [sections.what_was_run(sweep.manifest, sweep.rows, sweep.first_run)]),
        ("runs", "Runs", [_left_out(sweep.left_out), sections.runs(sweep.manifest, sweep.snapshot, sweep.rows)]),
    ]
    if sweep.curves:
        parts.append(("curves", "Loss curves", [drawn.get("loss_curves")]))
    if sweep.grid:
        against = [drawn.get(f"loss_against_{axis}") for axis in findings.AXES]
        parts += [
            ("grid", "Losses", [_mixed(sweep.rows), sections.losses(sweep.grid)]),
            ("axes", "Loss against N, D and G", against),
            ("granularity", "Granularity", [drawn.get("granularity"), sections.granularity(sweep.rows, sweep.grid)]),
        ]
    parts.append(("law", "The law", _law(sweep, drawn)))
    if sweep.predictions_trouble is not None:
        parts.append(("predictions", "Predictions", [h("div", sweep.predictions_trouble, class_="note")]))
    elif sweep.predictions:
        content = [sections.predicted(sweep.predictions), drawn.get("predictions")]
        parts.append(("predictions", "Predictions", content))
    nav = h("nav", *(h("a", title, href=f"#{name}") for name, title, _ in parts))
    made = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(sweep.snapshot.time))
    head = [
        h("h1", f"Sweep {sweep.manifest.sweep}"),
        h("div", f"{sweep.workdir} · {made} · moe_jax {importlib.metadata.version('moe_jax')}", class_="soft"),
        nav,
        sections.tiles(sweep.snapshot, sweep.rows, sweep.law),
    ]
    body = [html.join([h("h2", title, id=name), *content]) for name, title, content in parts]
    return html.page(f"Sweep {sweep.manifest.sweep}", *head, *body)


def _law(sweep: Sweep, drawn: dict[str, Html]) -> list[Any]:
    if sweep.law_trouble is not None:
        return [h("div", sweep.law_trouble, class_="note")]
    if sweep.law is None:
        return [sections.no_law(sweep.workdir)]
    return [sections.law(sweep.law), drawn.get("fit")]


def _left_out(left_out: Sequence[collect.LeftOut]) -> Html | None:
    damaged = [f"{run.name}: {run.why}" for run in left_out if run.damaged]
    return h("div", "Left out of every number on this page:", html.bullets(damaged), class_="note") if damaged else None


def _mixed(rows: Sequence[Row]) -> Html | None:
    mixed = results.mixed(rows)
    said = f"These runs differ in {', '.join(mixed)}; only runs that agree in it are compared with each other."
    return h("div", said, class_="note") if mixed else None


def main(argv: Sequence[str]) -> int:
    parser = command.parser("report", __doc__)
    parser.add_argument("--workdir", required=True, help="the sweep's folder, local or gs://")
    args = parser.parse_args(argv)
    work = Workdir(args.workdir)
    sweep = read(work)
    folder = work.path / "figures"
    folder.mkdir(parents=True, exist_ok=True)
    drawn = {}
    for name, picture in pictures(sweep).items():
        figure = picture.draw()
        files.write_atomic(folder / f"{name}.png", figures.to_bytes(figure, "png"))
        drawn[name] = html.figure(figures.to_bytes(figure, "svg"), picture.caption, picture.alt)
    path = work.path / "report.html"
    files.write_atomic(path, page(sweep, drawn).encode())
    for sentence in sections.in_short(sweep.snapshot, sweep.rows, sweep.grid, sweep.law, sweep.predictions):
        print(f"- {sentence}")
    print(f"report: {path} ({len(drawn)} figures, also in {folder})")
    if sweep.law_trouble is not None:
        raise errors.WorkFailed(f"the report is without a law: {sweep.law_trouble}")
    if sweep.predictions_trouble is not None:
        raise errors.WorkFailed(f"the report is without predictions: {sweep.predictions_trouble}")
    return errors.DONE


if __name__ == "__main__":
    command.end(main)
