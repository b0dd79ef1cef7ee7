"""`moe-jax predict`: the loss of every planned run under a law, with its interval."""

import dataclasses
import os
import time
from collections.abc import Sequence

from moe_jax import errors, text
from moe_jax.cli import command, outputs, tables
from moe_jax.config import config_file
from moe_jax.errors import UserError
from moe_jax.report import predictions

_DESCRIPTION = """Predicts the losses of runs under a law, before they are trained.

  moe-jax predict --law W/law.json --config=configs/smoke.py     the runs of a config's grid
  moe-jax predict --workdir W                                    those of W/sweep.json, under W/law.json
  moe-jax predict --workdir W --law krajewski2024                under a published law"""


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
    parser.add_argument("--out", help="CSV (default W/prediction.csv, or prediction.csv)")
    parser.epilog = config_file.HELP
    flags = parser.parse_args(others)
    if bool(config_args) == bool(flags.workdir):
        raise UserError("give a config (--config=configs/smoke.py) or a sweep's folder (--workdir=W), one of them")
    if not (flags.law or flags.workdir):
        raise UserError("--law is missing: give a law.json, or the name of a published law")
    if flags.level is not None and not 0 < flags.level < 1:
        raise UserError(f"--level is {flags.level:g}, must be inside (0, 1)")

    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from etils import epath

    from moe_jax import laws

    law = laws.find(flags.law or os.path.join(flags.workdir, "law.json"))
    runs = _planned(config_args, flags.workdir)
    rows = _predict(law, runs, _states(flags.workdir, runs), flags.level)
    _show(law, rows)
    out = epath.Path(flags.out or os.path.join(flags.workdir or "", "prediction.csv"))
    with outputs.writing(str(out), "--out"):
        kept = predictions.write(out, rows)
    if kept:
        print(f"- {text.count(kept, 'run')} done by now: {out} keeps their earlier predictions")
    print(f"predictions: {out}")
    return errors.DONE


def _planned(config_args: Sequence[str], workdir: str | None):
    from moe_jax.sweep.planned_grid import plan_grid
    from moe_jax.sweep.workdir import Workdir

    if workdir:
        return Workdir(workdir).existing_manifest().runs
    file = config_file.load(config_args)
    return plan_grid(file, store_required=file.config.model.vocab_size is None).runs


def _states(workdir: str | None, runs) -> list[str]:
    """The state of each run; "planned" without a sweep's folder."""
    from moe_jax.sweep.run_state import state_of
    from moe_jax.sweep.workdir import Workdir

    if not workdir:
        return ["planned"] * len(runs)
    work, now = Workdir(workdir), time.time()
    return [state_of(run, work.run_dir(run.name), now).state for run in runs]


def _predict(law, runs, states: Sequence[str], level: float | None) -> list[dict[str, object]]:
    import numpy as np

    from moe_jax.sweep import results

    known = [{**dataclasses.asdict(run.counts), **results.planned_columns(run)} for run in runs]
    for run, columns in zip(runs, known, strict=True):
        if missing := [c for c in law.form.columns.values() if columns.get(c) is None]:
            raise UserError(f"{run.name} has no {missing[0]}, and {law.name} needs it")
    axes = {c: np.array([k[c] for k in known], float) for c in law.form.columns.values()}
    beyond = law.outside(axes)
    costs = {c: np.array([k[c] for k in known], float) for c in _costs(law) if all(k.get(c) for k in known)}
    bands = law.bands({**costs, **axes}, level)
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


def _show(law, rows: Sequence[dict]) -> None:
    axes = list(law.form.columns.values())
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
