"""The top of a sweep's page: its most important numbers, and what it shows in a few sentences."""

import dataclasses
from collections.abc import Sequence

from moe_jax.report import capacity, findings, predictions
from moe_jax.report.findings import MeasuredCell
from moe_jax.report.formula import greek
from moe_jax.report.law_check import CheckedLaw
from moe_jax.report.predictions import CheckedPrediction
from moe_jax.report.sections import routing
from moe_jax.sweep.results import Row
from moe_jax.sweep.routing_record import RoutingRecord
from moe_jax.sweep.snapshot import Snapshot
from moe_jax.text import count, short

_COLLAPSED = 6  # sentences on collapse at most; the section of routing has more


@dataclasses.dataclass(frozen=True)
class Tile:
    """A number in large print, and what it is."""

    value: str
    label: str


def tiles(snapshot: Snapshot, rows: Sequence[Row], law: CheckedLaw | None) -> list[Tile]:
    """Progress, lowest loss, tokens, FLOPs and the law's error, as far as there are any."""
    done = [row for row in rows if row["status"] == "done"]
    shown = [Tile(f"{len(done)} of {len(snapshot.lines)}", "runs done")]
    if done:
        best = min(done, key=lambda row: row["eval_loss"])
        shown += [
            Tile(f"{best['eval_loss']:.4f}", f"nats per token, lowest held-out loss ({best['name']})"),
            Tile(short(sum(row["tokens"] for row in done)), "tokens trained on"),
            Tile(f"{sum(row['train_flops'] for row in done):.2e}", "training FLOPs"),
        ]
    if law is not None:
        shown.append(Tile(f"{law.law.errors['rmse_fit']:.4f}", "nats, RMSE of the fitted law"))
    return shown


def sentences(
    snapshot: Snapshot,
    rows: Sequence[Row],
    grid: Sequence[MeasuredCell],
    law: CheckedLaw | None,
    checked: Sequence[CheckedPrediction] = (),
    routings: Sequence[RoutingRecord] = (),
) -> list[str]:
    """What the sweep shows: states, falling losses, the effect of G, dropping, the law, the predictions, collapsed
    routers."""
    states = ", ".join(f"{n:,} {state}" for state, n in snapshot.totals.items())
    said = [f"{count(len(snapshot.lines), 'run')}: {states}."]
    if not grid:
        return [*said, "No run has a loss yet."]
    said.append(findings.falls(grid)[0])
    said += findings.granularity_sentences(findings.granularity_effects(grid), findings.noise(grid))
    said += findings.dropped(rows)[0] + capacity.sentences(rows, findings.noise(grid))
    if law is not None:
        said += [_law_sentence(law), *law.remarks]
    said += predictions.sentences(checked) if checked else []
    return said + [sentence for record in routings for sentence in routing.collapse(record)][:_COLLAPSED]


def _law_sentence(checked: CheckedLaw) -> str:
    law = checked.law
    runs, rmse = count(law.data.n_fit, "run"), law.errors["rmse_fit"]
    said = f"The law {law.name}, fitted to {runs}, has an RMSE of {rmse:.4f} nats"
    if law.data.n_holdout:
        said += f" ({law.errors['rmse_holdout']:.4f} on {count(law.data.n_holdout, 'run')} held out)"
    if law.identifiability.unidentified:
        return f"{said}; these runs do not identify {', '.join(map(greek, law.identifiability.unidentified))}."
    return f"{said}; no coefficient is marked as not identified."
