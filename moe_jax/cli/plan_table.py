"""A plan on the terminal: one line a run, then the totals in sentences."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from moe_jax import text
from moe_jax.cli import tables
from moe_jax.config.schema import Config
from moe_jax.plan.rows import Rates, Row, totals
from moe_jax.plan.trunk_saving import DECAY_FRACTION, trunk_saving
from moe_jax.sweep.planned_grid import PlannedGrid
from moe_jax.text import count, duration, short

_GIB = 2**30
_TOO_LARGE = "needs more memory than a chip has; the table says by how much"


def plan_table(rows: Sequence[Row], rates: Rates) -> tables.Table:
    """One line a run, with the columns of its compiled step where it was compiled."""
    headings = ["run", ">N active", ">N total", ">D", ">steps", ">batch", ">G", ">S", ">train FLOPs"]
    compiled = "fits" in rows[0]
    priced = rates.price_per_chip_hour is not None
    if compiled:
        headings += ["slice", "mesh", ">parts", ">GiB/chip", "fits", "bound", ">s/step", ">hours", ">chip-hours"]
        headings += [">price"] if priced else []
    lines = []
    for r in rows:
        line = [
            r["name"], short(r["n_active_nonemb"]), short(r["n_total_nonemb"]), short(r["tokens"]), f"{r['steps']:,}",
            short(r["batch_tokens"]), "–" if r["granularity"] is None else f"{r['granularity']:g}",
            text.percent(r["sparsity"]), f"{r['train_flops']:.3g}",
        ]  # fmt: skip
        if compiled:
            line += _step_cells(r) + ([text.fixed(r["price"], 2)] if priced else [])
        lines.append(line)
    styles = ["" if r.get("fits", True) else "red" for r in rows]
    return tables.Table(headings, lines, styles, spare=[">batch", ">S", ">N total", ">parts", ">steps", "mesh"])


def _step_cells(r: Row) -> list[str]:
    mesh = r["mesh"]
    cut = "–" if mesh is None else "×".join(str(size) for size in mesh.values())
    memory = None if r["bytes_per_device"] is None else r["bytes_per_device"] * r["devices"] / r["chips"] / _GIB
    topology = r["topology"] if r["slices"] == 1 else f"{r['slices']}×{r['topology']}"
    return [
        topology, cut, "–" if mesh is None else str(r["microbatches"]),
        text.fixed(memory, 2), fit_text(r), r["bound"] or "–", significant(r["step_seconds"]),
        significant(r["hours"]), significant(r["chip_hours"]),
    ]  # fmt: skip


def fit_text(r: Row) -> str:
    """The table's `fits` cell: yes, how much memory is missing, or that the step cannot run on this mesh."""
    if r["fits"]:
        return "yes"
    if r["bytes_per_device"] is None:
        return "cannot run"
    missing = (r["bytes_per_device"] - r["hbm_bytes"]) * r["devices"] / r["chips"]
    return f"{missing / _GIB:.2f} GiB over"


def significant(value: float | None) -> str:
    """Three significant digits, with thousands separators; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def plan_sentences(rows: Sequence[Row], rates: Rates, grid: PlannedGrid) -> list[str]:
    """The plan's assumptions and totals."""
    summed = totals(rows, grid)
    said = [
        f"N counts no embeddings, router or norms; {grid.store_sentence}",
        f"{count(summed['runs'], 'run')}: {short(summed['tokens'])} tokens, {summed['train_flops']:.3g} FLOPs; "
        f"by the papers' formulas {summed['flops_krajewski2024']:.3g} (krajewski2024), "
        f"{summed['flops_abnar2025']:.3g} (abnar2025), {summed['flops_6nd']:.3g} (6ND)",
    ]
    said += _trunk_sentences(grid) + _store_sentences(rows)
    if "fit" in summed:
        said += _step_sentences(summed, rows, rates, grid)
    return said


def _trunk_sentences(grid: PlannedGrid) -> list[str]:
    saving = trunk_saving(grid)
    if saving is None:
        return []
    what = f"{short(saving.tokens)} tokens instead of {short(saving.tokens_alone)}, {saving.train_flops:.3g} FLOPs"
    if grid.runs[0].config.optim.schedule == "wsd":
        return [f"{count(saving.trunks, 'trunk')} shared by runs that differ in D alone: {what} instead of "
                f"{saving.train_flops_alone:.3g}"]  # fmt: skip
    return [
        f"with optim.schedule=wsd, runs that differ in D alone would share {count(saving.trunks, 'trunk')}: {what} "
        f"(with decays of {DECAY_FRACTION:.0%} and the shortest warm-up)"
    ]


def _store_sentences(rows: Sequence[Row]) -> list[str]:
    said = []
    if repeating := [r for r in rows if r["epochs"] is not None and r["epochs"] > 1 and r["refusal"] is None]:
        most = max(r["epochs"] for r in repeating)
        said.append(
            f"{count(len(repeating), 'run')} will read the store's tokens more than once, up to {most:.3g} times"
        )
    return said + _by_reason("sweep will not start", {r["name"]: r["refusal"] for r in rows if r["refusal"]})


def _by_reason(verb: str, reasons: dict[str, str]) -> list[str]:
    """One line a reason, with the first run that has it and how many more do."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [
        f"- {verb} {runs[0]}{f' and {len(runs) - 1} more' if len(runs) > 1 else ''}: {text.one_line(reason)}"
        for reason, runs in names.items()
    ]


def _step_sentences(summed: dict[str, Any], rows: Sequence[Row], rates: Rates, grid: PlannedGrid) -> list[str]:
    said = [f"{summed['fit']:,} of {count(summed['runs'], 'run')} fit"]
    said += _by_reason("cannot be trained so:", {r["name"]: r["reason"] or _TOO_LARGE for r in rows if not r["fits"]})
    differing = {r["name"]: _flags(r, run.config) for r, run in zip(rows, grid.runs, strict=True) if r["fits"]}
    said += _by_reason("other than in the config:", {name: flags for name, flags in differing.items() if flags})
    if summed["chip_hours"] is not None:
        rate = (
            "at the rooflines' rate" if rates.efficiency == 1 else f"at {rates.efficiency:.0%} of the rooflines' rate"
        )
        longest = max(r["hours"] for r in rows if r["fits"])
        price = "" if summed["price"] is None else f", price {summed['price']:,.2f}"
        said.append(
            f"{significant(summed['chip_hours'])} chip-hours {rate}{price}, the longest run {duration(3600 * longest)}"
            "; without compiling, evaluation and saving"
        )
        if summed["trunks"] and summed["own_chip_hours"] is not None:
            price = "" if summed["own_price"] is None else f", price {summed['own_price']:,.2f}"
            said.append(f"with its trunks shared: {significant(summed['own_chip_hours'])} chip-hours{price}")
    return said


def _flags(r: Row, config: Config) -> str:
    """The flags that make `train` use the mesh and microbatches that were picked; empty where the config has them."""
    given = dataclasses.asdict(config.mesh)
    flags = [f"--config.mesh.{a}={n}" for a, n in r["mesh"].items() if given[a] not in (n, -1)]
    if r["microbatches"] != config.train.microbatches:
        flags.append(f"--config.train.microbatches={r['microbatches']}")
    return " ".join(flags)
