"""`moe-jax predict`: the loss of every planned run under a law, with its interval."""

import dataclasses
import os
import time
from collections.abc import Mapping, Sequence

from moe_jax import errors, text
from moe_jax.cli import command, optimum_flags, outputs, predict_csv, tables
from moe_jax.config import config_file
from moe_jax.errors import UserError
from moe_jax.report import predictions

_DESCRIPTION = """Predicts the losses of runs under a law, before they are trained.

  moe-jax predict --law W/law.json --config=configs/smoke.py     the runs of a config's grid
  moe-jax predict --workdir W                                    those of W/sweep.json, under W/law.json
  moe-jax predict --workdir W --law krajewski2024                under a published law
  moe-jax predict --law W/law.json --csv cells.csv               each row of a table: cells.prediction.csv"""


def main(argv: Sequence[str]) -> int:
    config_args, others = config_file.split(argv)
    parser = command.parser("predict", _DESCRIPTION)
    law = "a law.json or a published law (default W/law.json); FILE.py: before it for a law of your own"
    parser.add_argument("--law", help=law)
    parser.add_argument(
        "--workdir", help="a sweep's folder: its runs are predicted, and prediction.csv is written there"
    )
    parser.add_argument(
        "--level", type=float, help="share of the bootstrap samples in an interval (default the law's, 0.8)"
    )
    table = "a table with a column for each symbol of the law (N, D, G, or as the fit named them), a row a prediction"
    parser.add_argument("--csv", metavar="FILE", help=table)
    counts = "what a symbol of the law counts, where the fit's column does not say: N=n_total_nonemb"
    parser.add_argument("--counts", metavar="SYMBOL=COLUMN,…", help=counts)
    out = "CSV (default W/prediction.csv, or prediction.csv; of a table FILE.prediction.csv)"
    parser.add_argument("--out", help=out)
    parser.epilog = config_file.HELP
    flags = parser.parse_args(others)
    if sum(map(bool, (config_args, flags.workdir, flags.csv))) != 1:
        raise UserError(
            "give a config (--config=configs/smoke.py), a sweep's folder (--workdir=W) or a table (--csv=FILE), and one"
            " of them only"
        )
    if not (flags.law or flags.workdir):
        raise UserError("--law is missing: give a law.json, or the name of a published law")
    if flags.level is not None and not 0 < flags.level < 1:
        raise UserError(f"--level is {flags.level:g}, must be inside (0, 1)")

    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from etils import epath

    from moe_jax import laws

    law = laws.find(flags.law or os.path.join(flags.workdir, "law.json"))
    counts = optimum_flags.counted(flags.counts)
    if flags.csv:
        return _of_table(law, flags, counts)
    runs, store = _planned(config_args, flags.workdir)
    meant = laws.columns_meant(law, counts)
    rows = _predict(law, runs, store, _states(flags.workdir, runs), flags.level, meant)
    _show(law, rows, list(meant.values()))
    out = epath.Path(flags.out or os.path.join(flags.workdir or "", "prediction.csv"))
    with outputs.writing(str(out), "--out"):
        kept = predictions.write(out, rows)
    if kept:
        print(f"- {text.count(kept, 'run')} done by now: {out} keeps their earlier predictions")
    print(f"predictions: {out}")
    return errors.DONE


def _of_table(law, flags, counts: dict[str, str]) -> int:
    out = flags.out or predict_csv.beside(flags.csv)
    outputs.refuse_unwritable(out, "--out")
    table = predict_csv.predicted(law, flags.csv, counts, flags.level)
    predict_csv.show(law, table, law.level if flags.level is None else flags.level)
    outputs.write(out, table.to_csv(index=False).encode(), "--out")
    print(f"predictions: {out}")
    return errors.DONE


def _planned(config_args: Sequence[str], workdir: str | None):
    """(the planned runs, their token store)."""
    from moe_jax.sweep.planned_grid import plan_grid
    from moe_jax.sweep.workdir import Workdir

    if workdir:
        manifest = Workdir(workdir).existing_manifest()
        return manifest.runs, manifest.store
    file = config_file.load(config_args)
    grid = plan_grid(file, store_required=file.config.model.vocab_size is None)
    return grid.runs, grid.identity


def _states(workdir: str | None, runs) -> list[str]:
    """The state of each run; "planned" without a sweep's folder."""
    from moe_jax.sweep.run_state import state_of
    from moe_jax.sweep.workdir import Workdir

    if not workdir:
        return ["planned"] * len(runs)
    work, now = Workdir(workdir), time.time()
    return [state_of(run, work.run_dir(run.name), now).state for run in runs]


def _predict(
    law, runs, store, states: Sequence[str], level: float | None, meant: Mapping[str, str]
) -> list[dict[str, object]]:
    import numpy as np

    from moe_jax import laws
    from moe_jax.sweep import results

    known = [{**dataclasses.asdict(run.counts), **results.planned_columns(run, store.train_tokens)} for run in runs]
    for run, columns in zip(runs, known, strict=True):
        if missing := [c for c in meant.values() if columns.get(c) is None]:
            raise UserError(f"{run.name} has no {missing[0]}, and {law.name} needs it")
    axes = {c: np.array([k[c] for k in known], float) for c in meant.values()}
    by_symbol = {symbol: axes[c] for symbol, c in meant.items()}
    beyond = law.outside(by_symbol) | laws.choices.other_experts(law, {c: [k.get(c) for k in known] for c in known[0]})
    costs = {c: np.array([k[c] for k in known], float) for c in _costs(law) if all(k.get(c) for k in known)}
    bands = law.bands({**costs, **by_symbol}, level)
    low, high = bands.together()
    stated = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    out = []
    for i, run in enumerate(runs):
        out.append(
            {
                "name": run.name,
                **{c: v[i] for c, v in axes.items()},
                "predicted_loss": bands.value[i],
                "low": low[i],
                "high": high[i],
                "law_low": bands.law[0][i],
                "law_high": bands.law[1][i],
                "noise": bands.noise[i],
                "law_error_beyond": bands.beyond[i],
                "level": law.level if level is None else level,
                "outside": " ".join(c for c, mask in beyond.items() if mask[i]),
                "law": law.name,
                "loss": law.data.loss,
                "stated": stated,
                "state": states[i],
            }
        )
    return out


def _costs(law) -> Sequence[str]:
    """The columns of FLOPs by which the law knows how far a run lies beyond its data."""
    return list(law.extrapolation.reach) if law.extrapolation else []


def _show(law, rows: Sequence[dict], axes: Sequence[str]) -> None:
    heads = ["run", *(f">{c}" for c in axes), ">loss", f">{rows[0]['level']:.0%} of such runs"]
    heads += [">law", ">noise of a run", ">law's error beyond its data", "outside the fit"]
    lines = []
    for r in rows:
        parts = ["–"] * 4
        if law.samples:
            parts = [f"{r['low']:.3f} … {r['high']:.3f}", f"{r['law_low']:.3f} … {r['law_high']:.3f}"]
            parts += [f"± {r['noise']:.4f}", f"± {r['law_error_beyond']:.4f}" if law.extrapolation else "not known"]
        shown = [text.short(r[c]) if r[c] >= 1000 else f"{r[c]:g}" for c in axes]
        lines.append((r["name"], *shown, f"{r['predicted_loss']:.4f}", *parts, r["outside"]))
    print(f"{law.name}: L = {law.form.formula}")
    tables.show(tables.Table(heads, lines))
