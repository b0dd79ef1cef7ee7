"""A sweep's files -> all that its page shows, read once."""

import contextlib
import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
from etils import epath

from moe_jax import files
from moe_jax.errors import UserError
from moe_jax.report import findings, law_check, predictions, rate_laws
from moe_jax.report.findings import MeasuredCell
from moe_jax.report.law_check import CheckedLaw
from moe_jax.report.loss_curves import Curve
from moe_jax.report.predictions import CheckedPrediction
from moe_jax.sweep import results
from moe_jax.sweep.collected import LeftOut, gather
from moe_jax.sweep.known_results import KnownResults
from moe_jax.sweep.manifest import Manifest, PlannedRun
from moe_jax.sweep.read_many import read_many
from moe_jax.sweep.results import Row
from moe_jax.sweep.routing_record import RoutingRecord
from moe_jax.sweep.run_record import RunRecord
from moe_jax.sweep.run_state import State
from moe_jax.sweep.snapshot import Snapshot, take_snapshot
from moe_jax.sweep.workdir import Workdir
from moe_jax.text import number

_CURVES = 60  # runs at most whose loss curves are drawn
_POINTS = 400  # of a curve, at most


@dataclasses.dataclass(frozen=True)
class SweepData:
    """The contents of a sweep's files at one moment."""

    workdir: str
    manifest: Manifest
    snapshot: Snapshot
    rows: list[Row]
    left_out: list[LeftOut]
    grid: list[MeasuredCell]
    curves: list[Curve]
    first_run: RunRecord | None  # of the first run that began
    law: CheckedLaw | None
    law_error: str | None  # why law.json could not be read
    rate_laws: dict[str, CheckedLaw]  # of learning rates and batches, by their files' names without .json
    rate_law_errors: list[str]  # why others could not be read
    predictions: list[CheckedPrediction]
    predictions_error: str | None  # why prediction.csv could not be read
    routings: list[RoutingRecord]  # of the runs that were inspected, by size
    damaged_routings: list[str]  # why a routing.json was left out


def read(work: Workdir, law_path: epath.Path | None = None) -> SweepData:
    """Reads the sweep in `work`, with the law in `law_path` (default: its law.json). Raises UserError where there is no
    sweep."""
    manifest, known = work.existing_manifest(), KnownResults(work)
    snapshot, collected = take_snapshot(work, manifest, known), gather(work, manifest, known)
    law, law_error, results_csv = None, None, results.to_csv(collected.rows)
    try:
        law = law_check.check(law_path or work.path / "law.json", results_csv)
        if law is not None:
            law.law.require("loss")
    except UserError as e:
        law, law_error = None, str(e)
    rates, rate_law_errors = rate_laws.read(work.path, results_csv)
    checked, predictions_error = [], None
    try:
        if (stated := work.path / "prediction.csv").exists():
            checked = predictions.check(predictions.read(stated), collected.rows)
    except UserError as e:
        predictions_error = str(e)
    routings, damaged_routings = _routings(work, manifest, snapshot)
    return SweepData(
        workdir=str(work.path),
        manifest=manifest,
        snapshot=snapshot,
        rows=collected.rows,
        left_out=collected.left_out,
        grid=findings.measured_cells(collected.rows),
        curves=_curves(work, manifest, snapshot),
        first_run=_first_run(work, manifest, snapshot),
        law=law,
        law_error=law_error,
        rate_laws=rates,
        rate_law_errors=rate_law_errors,
        predictions=checked,
        predictions_error=predictions_error,
        routings=routings,
        damaged_routings=damaged_routings,
    )


def _curves(work: Workdir, manifest: Manifest, snapshot: Snapshot) -> list[Curve]:
    """Loss curves of the runs that have begun: at most _CURVES, evenly spaced among them."""
    lines = {line.name: line for line in snapshot.lines}
    begun = [run for run in manifest.runs if lines[run.name].step > 0 or lines[run.name].state == State.DAMAGED]
    chosen = np.unique(np.linspace(0, len(begun) - 1, min(_CURVES, len(begun))).astype(int))

    def curve(run: PlannedRun) -> Curve:
        tokens, losses = _logged_losses(work.run_dir(run.name).read_metrics())
        line, moe = lines[run.name], run.config.moe
        N, G = run.counts.n_total_nonemb, moe.granularity if moe else None
        return Curve(N, run.counts.tokens, G, tokens, losses, line.state, line.eval_loss)

    return [c for c in read_many(curve, [begun[i] for i in chosen]) if len(c.tokens)]


def _routings(work: Workdir, manifest: Manifest, snapshot: Snapshot) -> tuple[list[RoutingRecord], list[str]]:
    """(routing.json of every run that has one, by size; why others were left out)."""

    def routing(run: PlannedRun) -> RoutingRecord | str | None:
        try:
            return work.run_dir(run.name).routing()
        except files.DamagedFile as e:
            return str(e)

    begun = [run for run, line in zip(manifest.runs, snapshot.lines, strict=True) if line.attempts]
    found = read_many(routing, sorted(begun, key=lambda run: (run.counts.n_total_nonemb, run.counts.tokens, run.name)))
    return [x for x in found if isinstance(x, RoutingRecord)], [x for x in found if isinstance(x, str)]


def _logged_losses(steps: Sequence[dict[str, Any]]) -> tuple[np.ndarray, np.ndarray]:
    """(tokens, losses) of metrics.jsonl, each (points,); at most _POINTS, evenly spaced in the logarithm."""
    points = [(t, x) for s in steps if (t := number(s.get("tokens"))) and (x := number(s.get("loss"))) and t > 0 < x]
    tokens, losses = np.array(points, np.float64).reshape(-1, 2).T
    kept = np.unique(np.geomspace(1, max(len(points), 1), _POINTS).astype(int) - 1) if points else slice(0)
    return tokens[kept], losses[kept]


def _first_run(work: Workdir, manifest: Manifest, snapshot: Snapshot) -> RunRecord | None:
    for run, line in zip(manifest.runs, snapshot.lines, strict=True):
        if line.attempts:
            with contextlib.suppress(files.DamagedFile):
                if (record := work.run_dir(run.name).run_record()) is not None:
                    return record
    return None
