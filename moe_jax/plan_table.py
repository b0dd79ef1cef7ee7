"""Rows and totals of a plan: what is known of each run before it is trained. Its table, and plan.json."""

import dataclasses
from collections.abc import Sequence
from typing import Any

from moe_jax import jobs, outlook, results, tables
from moe_jax.config import Config
from moe_jax.outlook import Outlook
from moe_jax.tables import count, duration, short
from moe_jax.workdir import PlannedRun

Row = dict[str, Any]

_FLOPS = ("flops_krajewski2024", "flops_abnar2025", "flops_6nd", "train_flops")
_GIB = 2**30


def rows(grid: Outlook) -> list[Row]:
    """The columns of results.csv that are known before training, and what else is; tokens and FLOPs of whole runs."""
    own = {job.name: job.tokens for job in jobs.jobs(grid.runs)}
    trunks = {run.name: trunk.name for trunk in jobs.trunks(grid.runs) for run in trunk.branches}
    return [_row(run, grid, trunks.get(run.name), own[run.name]) for run in grid.runs]


def _row(run: PlannedRun, grid: Outlook, trunk: str | None, own_tokens: int) -> Row:
    available, store = grid.available_tokens(run.config), grid.store_sha256
    return {
        "name": run.name,
        **results.planned_columns(run),
        "tokens": run.counts["tokens"],
        "steps": run.counts["steps"],
        **{column: run.counts[column] for column in _FLOPS},
        "trunk": trunk,
        "own_tokens": own_tokens,
        "store_sha256": store,
        "config_hash": None if store is None else run.config_hash,
        "epochs": None if available is None else run.counts["tokens"] / available,  # 1: each token of the store once
        "refusal": grid.refusal(run),  # why sweep would not begin it on this store
    }


@dataclasses.dataclass(frozen=True)
class Rates:
    """What turns the seconds of a roofline into hours and money."""

    efficiency: float = 1.0  # the share of the roofline's rate that is reached; 1: the bound itself
    price_per_chip_hour: float | None = None


def with_step(row: Row, step: Row, rates: Rates) -> Row:
    """The row with the columns of its compiled step (forecast.columns), and what follows for the whole run."""
    merged = row | step
    if step["step_seconds"] is None:
        return merged | dict.fromkeys(("hours", "chip_hours", "price"))
    hours = row["steps"] * step["step_seconds"] / rates.efficiency / 3600
    chip_hours = hours * step["chips"]
    price = None if rates.price_per_chip_hour is None else chip_hours * rates.price_per_chip_hour
    return merged | {"hours": hours, "chip_hours": chip_hours, "price": price}


def totals(rows: Sequence[Row], grid: Outlook) -> dict[str, Any]:
    """Sums over the runs; chip-hours and price are of the runs that fit, None where nothing was compiled.

    `own_…`: of what is trained where runs share trunks; chip-hours and price None unless every run fits."""
    summed: dict[str, Any] = {"runs": len(rows)}
    summed |= {column: sum(r[column] for r in rows) for column in ("tokens", "steps", *_FLOPS)}
    trained = jobs.saving(grid.runs)
    summed |= {"trunks": trained.trunks, "own_tokens": trained.tokens, "own_train_flops": trained.train_flops}
    summed["refused"] = sum(r["refusal"] is not None for r in rows)
    if "fits" in rows[0]:
        summed["fit"] = sum(r["fits"] for r in rows)
        for column in ("chip_hours", "price"):
            known = {r["name"]: r[column] for r in rows if r["fits"] and r[column] is not None}
            summed[column] = sum(known.values()) if known else None
            summed[f"own_{column}"] = _shared(known, grid) if len(known) == len(rows) else None
    return summed


def _shared(whole: dict[str, float], grid: Outlook) -> float:
    """Costs of whole runs -> the cost of what is trained, where runs share trunks."""
    trained = 0.0
    for job in jobs.jobs(grid.runs):
        run = (job.runs or job.trunk.branches)[0]  # a trunk's step costs what its branches' steps do
        trained += whole[run.name] * job.train_flops / run.counts["train_flops"]
    return trained


def table(rows: Sequence[Row], rates: Rates) -> tables.Table:
    """One line a run; with the columns of the compiled step where it was compiled."""
    headings = ["run", ">N active", ">N total", ">D", ">steps", ">batch", ">G", ">S", ">train FLOPs"]
    compiled = "fits" in rows[0]
    priced = rates.price_per_chip_hour is not None
    if compiled:
        headings += [">chips", "mesh", ">parts", ">GiB/chip", "fits", "bound", ">s/step", ">hours", ">chip-hours"]
        headings += [">price"] if priced else []
    lines = []
    for r in rows:
        line = [
            r["name"], short(r["n_active_nonemb"]), short(r["n_total_nonemb"]), short(r["tokens"]), f"{r['steps']:,}",
            short(r["batch_tokens"]), "–" if r["granularity"] is None else f"{r['granularity']:g}",
            tables.percent(r["sparsity"]), f"{r['train_flops']:.3g}",
        ]  # fmt: skip
        if compiled:
            line += _step_cells(r) + ([tables.fixed(r["price"], 2)] if priced else [])
        lines.append(line)
    styles = ["" if r.get("fits", True) else "red" for r in rows]
    return tables.Table(headings, lines, styles, spare=[">batch", ">S", ">N total", ">parts", ">steps", "mesh"])


def _step_cells(r: Row) -> list[str]:
    mesh = r["mesh"]
    cut = "–" if mesh is None else "×".join(str(size) for size in mesh.values())
    memory = None if r["bytes_per_device"] is None else r["bytes_per_device"] * r["devices"] / r["chips"] / _GIB
    return [
        "–" if r["chips"] is None else f"{r['chips']:,}", cut, "–" if mesh is None else str(r["microbatches"]),
        tables.fixed(memory, 2), fit_words(r), r["bound"] or "–", significant(r["step_seconds"]),
        significant(r["hours"]), significant(r["chip_hours"]),
    ]  # fmt: skip


def fit_words(r: Row) -> str:
    """yes, by how much not, or that it cannot be cut so."""
    if r["fits"]:
        return "yes"
    if r["bytes_per_device"] is None:
        return "cannot run"
    return f"{_over(r):.2f} GiB over"


def _over(r: Row) -> float:
    """GiB of a chip's memory that are missing."""
    return (r["bytes_per_device"] - r["hbm_bytes"]) * r["devices"] / r["chips"] / _GIB


def significant(value: float | None) -> str:
    """Three digits, with thousands set apart; a dash for None."""
    if value is None:
        return "–"
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def words(rows: Sequence[Row], rates: Rates, grid: Outlook) -> list[str]:
    """What the plan stands on and sums to, in sentences."""
    summed = totals(rows, grid)
    said = [
        f"N is without embeddings, router and norms; {grid.sentence}",
        f"{count(summed['runs'], 'run')}: {short(summed['tokens'])} tokens, {summed['train_flops']:.3g} FLOPs; "
        f"by the papers' formulas {summed['flops_krajewski2024']:.3g} (krajewski2024), "
        f"{summed['flops_abnar2025']:.3g} (abnar2025), {summed['flops_6nd']:.3g} (6ND)",
    ]
    said += _trunk_words(rows, grid) + _store_words(rows)
    if "fit" in summed:
        said += _step_words(summed, rows, rates, grid)
    return said


def _trunk_words(rows: Sequence[Row], grid: Outlook) -> list[str]:
    saving = outlook.trunk_saving(grid.runs)
    if saving is None:
        return []
    what = f"{short(saving.tokens)} tokens instead of {short(saving.tokens_alone)}, {saving.train_flops:.3g} FLOPs"
    if grid.runs[0].config.optim.schedule == "wsd":
        return [f"{count(saving.trunks, 'trunk')} shared by runs that differ in D alone: {what} instead of "
                f"{saving.train_flops_alone:.3g}"]  # fmt: skip
    return [
        f"with optim.schedule=wsd, runs that differ in D alone would share {count(saving.trunks, 'trunk')}: {what} "
        f"(decays of {outlook.DECAY_FRACTION:.0%}, the shortest warm-up)"
    ]


def _store_words(rows: Sequence[Row]) -> list[str]:
    said = []
    if repeating := [r for r in rows if r["epochs"] is not None and r["epochs"] > 1 and r["refusal"] is None]:
        most = max(r["epochs"] for r in repeating)
        said.append(f"{count(len(repeating), 'run')} will see the store's tokens again, up to {most:.3g} times in all")
    return said + _by_reason("sweep will not begin", {r["name"]: r["refusal"] for r in rows if r["refusal"]})


def _by_reason(verb: str, reasons: dict[str, str]) -> list[str]:
    """One line a reason, which names the first run that has it."""
    names: dict[str, list[str]] = {}
    for name, reason in reasons.items():
        names.setdefault(reason, []).append(name)
    return [
        f"- {verb} {runs[0]}{f' and {len(runs) - 1} more' if len(runs) > 1 else ''}: {tables.one_line(reason)}"
        for reason, runs in names.items()
    ]


def _step_words(summed: dict[str, Any], rows: Sequence[Row], rates: Rates, grid: Outlook) -> list[str]:
    said = [f"{summed['fit']:,} of {count(summed['runs'], 'run')} fit"]
    said += _by_reason("cannot be done so:", {r["name"]: _why_not(r) for r in rows if not r["fits"]})
    other = {r["name"]: _flags(r, run.config) for r, run in zip(rows, grid.runs, strict=True) if r["fits"]}
    said += _by_reason("not as in the config:", {name: flags for name, flags in other.items() if flags})
    if summed["chip_hours"] is not None:
        rate = (
            "at the rooflines' rate, a bound" if rates.efficiency == 1 else f"at {rates.efficiency:.0%} of the roofline"
        )
        longest = max(r["hours"] for r in rows if r["fits"])
        price = "" if summed["price"] is None else f", price {summed['price']:,.2f}"
        said.append(
            f"{significant(summed['chip_hours'])} chip-hours {rate}{price}; the longest run takes "
            f"{duration(3600 * longest)}; compiling, evaluation, saving and waiting are not in it"
        )
        if summed["trunks"] and summed["own_chip_hours"] is not None:
            price = "" if summed["own_price"] is None else f", price {summed['own_price']:,.2f}"
            said.append(f"with its trunks shared: {significant(summed['own_chip_hours'])} chip-hours{price}")
    return said


def _why_not(r: Row) -> str:
    return r["reason"] or f"needs {_over(r):.2f} GiB more than a chip has"


def _flags(r: Row, config: Config) -> str:
    """What makes `train` do it as it was picked; nothing where the config says the same."""
    given = dataclasses.asdict(config.mesh)
    flags = [f"--config.mesh.{a}={n}" for a, n in r["mesh"].items() if given[a] not in (n, -1)]
    if r["microbatches"] != config.train.microbatches:
        flags.append(f"--config.train.microbatches={r['microbatches']}")
    return " ".join(flags)
