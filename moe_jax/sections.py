"""The parts of the report's page: what a sweep holds -> HTML. Sentences say what was counted, and what was not seen."""

import math
import re
import shlex
from collections import Counter
from collections.abc import Callable, Sequence
from typing import Any

from moe_jax import findings
from moe_jax.findings import Cell
from moe_jax.fitcheck import CheckedLaw
from moe_jax.html import Html, bullets, h, join, table
from moe_jax.manifest import Manifest, PlannedRun
from moe_jax.predictions import Checked, say
from moe_jax.results import Row
from moe_jax.status import Line, Snapshot
from moe_jax.tables import count, duration, fixed, number, one_line, percent, short

_TABLE_ROWS = 500  # of a page's table; all runs are in results.csv
_GREEK = {"alpha": "α", "beta": "β", "gamma": "γ", "delta": "δ", "omega": "ω", "zeta": "ζ", "lambda": "λ"}


def tiles(snap: Snapshot, rows: Sequence[Row], law: CheckedLaw | None) -> Html:
    """The numbers to see first."""
    done = [row for row in rows if row["status"] == "done"]
    shown = [(f"{len(done)} of {len(snap.lines)}", "runs done")]
    if done:
        best = min(done, key=lambda row: row["eval_loss"])
        shown.append((f"{best['eval_loss']:.4f}", f"lowest held-out loss, {best['name']}"))
        shown.append((short(sum(row["tokens"] for row in done)), "tokens trained on"))
        shown.append((f"{sum(row['train_flops'] for row in done):.2e}", "FLOPs"))
    if law is not None:
        shown.append((f"{law.law.errors['rmse_fit']:.4f}", "nats, RMSE of the fitted law"))
    return h("div", *(h("div", h("b", value), h("span", what), class_="tile") for value, what in shown), class_="tiles")


def in_short(
    snap: Snapshot,
    rows: Sequence[Row],
    grid: Sequence[Cell],
    law: CheckedLaw | None,
    predictions: Sequence[Checked] = (),
) -> list[str]:
    """What the page says, in a few sentences."""
    states = ", ".join(f"{n:,} {state}" for state, n in snap.totals.items())
    said = [f"{count(len(snap.lines), 'run')}: {states}."]
    if not grid:
        return [*said, "No run has a loss yet."]
    said.append(findings.falls(grid)[0])
    said += findings.say_granularity(findings.granularity_effects(grid), findings.noise(grid))
    said += findings.dropped(rows)[0]
    if law is not None:
        said.append(_law_in_short(law))
        said += law.remarks
    return said + (say(predictions) if predictions else [])


def _law_in_short(checked: CheckedLaw) -> str:
    law = checked.law
    held_out = f", {law.errors['rmse_holdout']:.4f} on {count(law.n_holdout, 'run')} held out" if law.n_holdout else ""
    said = f"The law {law.law}, fitted to {count(law.n_fit, 'run')}, misses them by {law.errors['rmse_fit']:.4f} nats"
    unknown = ", ".join(map(_symbol, law.unidentified))
    doubt = f"these runs do not identify {unknown}" if unknown else "no coefficient is marked as not identified"
    return f"{said} (RMSE{held_out}); {doubt}."


def what_was_run(manifest: Manifest, rows: Sequence[Row], first_run: dict[str, Any]) -> Html:
    """The sweep's flags, data, and the machines and versions of its runs."""
    config = manifest.runs[0].config
    versions = first_run.get("versions")
    facts = [
        ("sweep", manifest.sweep),
        ("made with", h("code", manifest.config_flags)),
        ("token store", join([manifest.store.path, " · sha256 ", h("code", manifest.store.sha256[:16]), "…"])),
        ("vocabulary", f"{manifest.store.vocabulary_size:,} tokens"),
        ("held out", f"{config.eval.sequences:,} windows of {config.data.sequence_length} tokens"),
        ("batch", _kinds(manifest.runs, lambda run: f"{run.config.batch_tokens:,} tokens")),
        ("learning rate", _kinds(manifest.runs, lambda run: f"{run.config.optim.learning_rate:g}")),
        ("router", _kinds(manifest.runs, lambda run: run.config.moe.router if run.config.moe else "none (dense)")),
        ("device", _counted(row["device"] for row in rows)),
        ("git commit", _counted(row["git_commit"] for row in rows)),
        ("mesh (first run)", _pairs(first_run.get("mesh"))),
        ("versions (first run)", _pairs(versions)),
    ]
    return h("dl", *(join([h("dt", name), h("dd", value)]) for name, value in facts if value))


def _kinds(runs: Sequence[PlannedRun], of: Callable[[PlannedRun], str]) -> str:
    return _counted(of(run) for run in runs)


def _counted(values: Any) -> str:
    """Each value with its number of runs, or the one that all have."""
    seen = Counter(str(value) for value in values if value is not None)
    if len(seen) == 1:
        return next(iter(seen))
    return ", ".join(f"{value} ({count(n, 'run')})" for value, n in seen.most_common(6)) + (
        " …" if len(seen) > 6 else ""
    )


def _pairs(values: Any) -> str:
    return ", ".join(f"{key} {value}" for key, value in values.items()) if isinstance(values, dict) else ""


def runs(manifest: Manifest, snap: Snapshot, rows: Sequence[Row]) -> Html:
    """Every run with its state; what is wrong with those that did not come through."""
    by_name, lines = {row["name"]: row for row in rows}, {line.name: line for line in snap.lines}
    planned = sorted(manifest.runs, key=_by_size)
    headings = (
        "run", "state", ">N total", ">N active", ">D", ">G", ">E", ">held-out loss", ">bits/byte", ">train loss",
        ">dropped", ">tokens/s", ">wall",
    )  # fmt: skip
    made = table(
        headings,
        [_run_row(run, lines[run.name], by_name.get(run.name)) for run in planned[:_TABLE_ROWS]],
        caption="Losses in nats per token. N is without embeddings, router and norms.",
        tall=len(planned) > 30,
    )
    wrong = [line for line in snap.lines if line.state in ("failed", "diverged", "damaged", "stale")]
    return join(
        [
            made,
            h("p", f"{len(planned) - _TABLE_ROWS:,} more are in results.csv.", class_="soft")
            if len(planned) > _TABLE_ROWS
            else None,
            h("h3", "Runs that did not come through") if wrong else None,
            bullets(join([h("code", line.name), f" ({line.state}): {one_line(line.sentence)}"]) for line in wrong[:60]),
            h("p", f"{len(wrong) - 60:,} more: moe-jax status lists them.", class_="soft") if len(wrong) > 60 else None,
        ]
    )


def _by_size(run: PlannedRun) -> tuple:
    G = run.config.moe.granularity if run.config.moe else 0
    return run.counts["n_total_nonemb"], run.counts["tokens"], G, run.name


def _run_row(run: PlannedRun, line: Line, row: Row | None) -> list[Any]:
    moe, row = run.config.moe, row or {}
    state = h("span", line.state, class_=f"state {line.state}")
    progress = f" {100 * line.step / line.steps:.0f}%" if line.state in ("running", "stale", "failed") else ""
    return [
        h("code", run.name), h("td", state, progress), short(run.counts["n_total_nonemb"]),
        short(run.counts["n_active_nonemb"]), short(run.counts["tokens"]), short(moe.granularity) if moe else "dense",
        short(moe.expansion_rate) if moe else "–", fixed(row.get("eval_loss"), 4), fixed(row.get("bits_per_byte"), 3),
        fixed(row.get("train_loss"), 4), percent(row.get("dropped_fraction")), short(line.tokens_per_second),
        duration(row.get("wall_seconds")),
    ]  # fmt: skip


def losses(grid: Sequence[Cell]) -> Html:
    """The grid of losses, darker where lower, and the neighbours between which the loss does not fall."""
    contexts = list(dict.fromkeys(cell.context for cell in grid))
    differ = {pair[0] for context in contexts for pair in context if any(pair not in other for other in contexts)}
    parts = [_grid(grid, context, differ) for context in contexts[:8]]
    if len(contexts) > 8:
        parts.append(h("p", f"{len(contexts) - 8} more settings are in results.csv.", class_="soft"))
    sentence, exceptions = findings.falls(grid)
    parts.append(h("p", sentence))
    if exceptions:
        parts.append(h("p", "Where it does not fall:"))
        parts.append(bullets(findings.say_pair(pair) for pair in exceptions[:30]))
    spread = findings.noise(grid)
    seeds = "No cell was repeated with another seed, so the noise of a single run is not known from these runs."
    parts.append(
        h("p", seeds if spread is None else f"Seeds of one cell scatter by {spread:.4f} nats (standard deviation).")
    )
    return join(parts)


def _grid(grid: Sequence[Cell], context: tuple, differ: set[str]) -> Html:
    here = [cell for cell in grid if cell.context == context]
    Gs = sorted({cell.G for cell in here}, key=lambda G: G or 0)
    least, most = (f(cell.loss for cell in grid) for f in (min, max))
    at = {(cell.N, cell.D, cell.G): cell for cell in here}

    def tinted(cell: Cell | None) -> Html:
        if cell is None:
            return h("td", "", class_="n")
        depth = 0.04 + 0.46 * (most - cell.loss) / (most - least or 1)
        several = f" ({len(cell.losses)} seeds)" if len(cell.losses) > 1 else ""
        return h("td", f"{cell.loss:.4f}{several}", class_="n", style=f"background: rgba(31, 95, 168, {depth:.2f})")

    rows = [
        [short(N), short(D), *(tinted(at.get((N, D, G))) for G in Gs)]
        for N, D in sorted({(cell.N, cell.D) for cell in here})
    ]
    settings = ", ".join(f"{column} = {value}" for column, value in context if column in differ)
    headings = [">N total", ">D", *(">dense" if G is None else f">G = {short(G)}" for G in Gs)]
    return table(headings, rows[:_TABLE_ROWS], caption=f"Held-out loss, nats per token. {settings}".strip())


def granularity(rows: Sequence[Row], grid: Sequence[Cell]) -> Html:
    """The effect of G as measured, and what was dropped."""
    said = findings.say_granularity(findings.granularity_effects(grid), findings.noise(grid))
    dropped, over = findings.dropped(rows)
    means = findings.mean_by(rows, "dropped_fraction", "granularity")
    parts = [h("p", " ".join(said)), h("h3", "Dropped tokens"), h("p", dropped[0])]
    parts += [h("div", sentence, class_="note") for sentence in dropped[1:]]
    if means:
        ordered = sorted(means.items(), key=lambda item: item[0] or 0)
        cells = [["dense" if G is None else short(G), percent(mean)] for G, mean in ordered]
        parts.append(table([">G", ">dropped, mean of runs"], cells))
    if over:
        names = ", ".join(f"{row['name']} {percent(row['dropped_fraction'])}" for row in over[:12])
        parts.append(
            h("p", f"Above {findings.DROPPED_LIMIT:.0%}: {names}{', …' if len(over) > 12 else ''}.", class_="soft")
        )
    return join(parts)


def no_law(workdir: str) -> Html:
    where = shlex.quote(workdir)
    commands = h("code", f"moe-jax collect --workdir {where} && moe-jax fit --workdir {where}")
    return h("p", "There is no law.json yet. These commands make it: ", commands)


def law(checked: CheckedLaw) -> Html:
    """The formula, its coefficients beside the published ones, the errors, and what the data leave open."""
    fitted = checked.law
    where, printed = next(iter(fitted.form.published.items()), ("–", {}))
    rows = [
        [
            h("td", _symbol(name)),
            f"{value:.4g}",
            _interval(fitted, name),
            _identified(fitted, name),
            _known(printed.get(name)),
        ]
        for name, value in fitted.coefficients.items()
    ]
    return join(
        [
            *(h("div", remark, class_="note") for remark in checked.remarks),
            h("p", h("b", fitted.law), ":  L = ", formula(fitted.form.formula)),
            h(
                "p",
                "; ".join(f"{symbol} is {column}" for symbol, column in fitted.columns.items()),
                ". ",
                class_="soft",
            ),
            table(
                ["", ">fitted", f">{fitted.level:.0%} interval", "identified", f">published ({where})"],
                rows,
                caption=f"Published: {fitted.form.source}. Other data, other tokens: to compare shapes, not digits.",
            ),
            h("h3", "What the data leave open"),
            bullets(fitted.doubts) or h("p", "The fit raised no doubt about a coefficient."),
            bullets(fitted.notes),
            h("h3", "Errors"),
            _errors(checked),
        ]
    )


def _interval(fitted: Any, name: str) -> str:
    if name in fitted.given or name not in fitted.intervals:
        return "–"
    low, high = fitted.intervals[name]
    return f"{low:.4g} … {high:.4g}"


def _identified(fitted: Any, name: str) -> Html:
    if name in fitted.given:
        return h("td", "fixed, not fitted" + (" (the data could not choose it)" if name in fitted.unidentified else ""))
    if name in fitted.unidentified:
        return h("td", h("span", "no", class_="state stale"))
    return h("td", "yes" if name in fitted.intervals else "not tested (no bootstrap)")


def _known(value: float | None) -> str:
    return "–" if value is None else f"{value:.4g}"


def predicted(checked: Sequence[Checked]) -> Html:
    """Every prediction beside its measurement, and how good they were."""
    rows = [
        [
            h("code", c.name),
            fixed(c.predicted, 4),
            "–" if math.isnan(c.low) else f"{c.low:.4f} … {c.high:.4f}",
            fixed(c.measured, 4),
            "–" if c.error is None else f"{c.error:+.4f}",
            {None: "–", True: "yes", False: h("td", h("span", "no", class_="state stale"))}[c.inside],
            "before" if c.before else "after the run was done",
            c.stated,
            c.outside,
        ]
        for c in checked[:_TABLE_ROWS]
    ]
    headings = (
        "run",
        ">predicted",
        ">interval",
        ">measured",
        ">error",
        "inside",
        "stated",
        "at (UTC)",
        "outside the fit",
    )
    laws = ", ".join(dict.fromkeys(c.law for c in checked))
    caption = (
        f"Under {laws}. The interval is for one more run: the law's doubt and the scatter of single runs about it."
    )
    return join([bullets(say(checked)), table(headings, rows, caption=caption, tall=len(rows) > 30)])


def _errors(checked: CheckedLaw) -> Html:
    fitted = checked.law
    names = {
        "rmse_fit": f"RMSE of the {count(fitted.n_fit, 'run')} fitted", "max_fit": "largest miss among them",
        "rmse_holdout": f"RMSE of the {count(fitted.n_holdout, 'run')} held out",
        "mean_holdout": "mean of measured − predicted among them",
        "noise": "noise: seeds of one cell (standard deviation)",
    }  # fmt: skip
    rows = [
        [text, f"{value:.4f}"] for key, text in names.items() if (value := number(fitted.errors.get(key))) is not None
    ]
    o = fitted.objective
    how = (
        f"Huber loss (δ = {o.get('huber')}) on {'ln ' if o.get('space') == 'log' else ''}{fitted.loss}; penalty l1 "
        f"{o.get('l1')}, l2 {o.get('l2')}; {fitted.starts_at_best} of {fitted.starts} starts reached the best optimum; "
        f"intervals from {len(next(iter(fitted.samples.values()), ()))} bootstrap samples."
    )
    return join([table(["", ">nats"], rows), h("p", how, class_="soft")])


def formula(text: str) -> Html:
    """`g * G^-gamma` as g·G with the exponent −γ raised."""
    marked = re.sub(r"\^(?:\(([^()]*)\)|(-?\w+))", lambda m: f"<sup>{m[1] or m[2]}</sup>", join([text]))
    marked = re.sub(r"[a-z]+", lambda m: _GREEK.get(m[0], m[0]), marked.replace(" * ", "·"))
    return Html(marked.replace("-", "−"))


def _symbol(name: str) -> str:
    return _GREEK.get(name, name)
