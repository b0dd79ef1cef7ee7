"""`moe-jax predict`: the loss of every planned run under a law, with its interval, before (and beside) its training."""

import os
import time
from collections.abc import Sequence

from moe_jax import command, configfile, errors, predictions, tables
from moe_jax.errors import UserError

_DESCRIPTION = """States what a law expects of runs before they are trained.

  moe-jax predict --law W/law.json --config=configs/smoke.py     the runs of a config's grid
  moe-jax predict --workdir W                                    those of W/sweep.json, under W/law.json
  moe-jax predict --workdir W --law krajewski2024                under a published law"""


def main(argv: Sequence[str]) -> int:
    config_args, others = configfile.split(argv)
    parser = command.parser("predict", _DESCRIPTION)
    parser.add_argument("--law", help="a law.json or a published law (default W/law.json)")
    parser.add_argument("--workdir", help="a sweep's folder: its runs, and where prediction.csv goes")
    parser.add_argument("--level", type=float, help="what the intervals hold (default the law's, 0.8)")
    parser.add_argument("--out", help="CSV (default W/prediction.csv, or prediction.csv)")
    parser.epilog = configfile.HELP
    flags = parser.parse_args(others)
    if bool(config_args) == bool(flags.workdir):
        raise UserError("give a config (--config=configs/smoke.py) or a sweep's folder (--workdir=W), one of them")
    if not (flags.law or flags.workdir):
        raise UserError("--law says which law: a law.json, or the name of a published one")
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
    kept = predictions.write(out, rows)
    if kept:
        print(f"- {tables.count(kept, 'run')} done by now: what {out} said of them before is kept")
    print(f"predictions: {out}")
    return errors.DONE


def _planned(config_args: Sequence[str], workdir: str | None):
    from moe_jax import grid, planning
    from moe_jax.manifest import StoreIdentity, plan_runs
    from moe_jax.workdir import Workdir

    if workdir:
        return Workdir(workdir).existing_manifest().runs
    file = configfile.load(config_args)
    if V := file.config.model.vocabulary_size:
        store = StoreIdentity(file.config.data.store, "", V)
    else:  # the vocabulary is the store's
        info = planning.open_configs_store(file).info
        store = StoreIdentity(file.config.data.store, info.sha256, info.vocabulary_size)
    runs = grid.expand(file.base.to_dict(), file.cells)
    planning.check_grid(file, runs)
    return plan_runs(runs, store)


def _states(workdir: str | None, runs) -> list[str]:
    """What each run is now; without a sweep's folder, planned."""
    from moe_jax.runstate import state_of
    from moe_jax.workdir import Workdir

    if not workdir:
        return ["planned"] * len(runs)
    work, now = Workdir(workdir), time.time()
    return [state_of(run, work.run_dir(run.name), now).state for run in runs]


def _predict(law, runs, states: Sequence[str], level: float | None) -> list[dict[str, object]]:
    import numpy as np

    from moe_jax import results

    known = [{**run.counts, **results.planned_columns(run)} for run in runs]
    for run, columns in zip(runs, known, strict=True):
        if missing := [c for c in law.form.columns.values() if columns[c] is None]:
            raise UserError(f"{run.name} has no {missing[0]}, and {law.law} needs it")
    axes = {c: np.array([k[c] for k in known], float) for c in law.form.columns.values()}
    beyond = law.outside(axes)
    value, low, high = law.predict(axes, level, residual=bool(law.samples))
    _, law_low, law_high = law.predict(axes, level)
    stated = time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime())
    out = []
    for i, run in enumerate(runs):
        out.append(
            {
                "name": run.name,
                **{c: v[i] for c, v in axes.items()},
                "predicted_loss": value[i],
                "low": low[i],
                "high": high[i],
                "law_low": law_low[i],
                "law_high": law_high[i],
                "level": law.level if level is None else level,
                "outside": " ".join(c for c, mask in beyond.items() if mask[i]),
                "law": law.law,
                "loss": law.loss,
                "stated": stated,
                "state": states[i],
            }
        )
    return out


def _show(law, rows: Sequence[dict]) -> None:
    axes = list(law.form.columns.values())
    heads = ["run", *(f">{c}" for c in axes), ">loss", f">{rows[0]['level']:.0%} of such runs", "outside the fit"]
    lines = []
    for r in rows:
        band = f"{r['low']:.3f} … {r['high']:.3f}" if law.samples else "–"
        shown = [tables.short(r[c]) if r[c] >= 1000 else f"{r[c]:g}" for c in axes]
        lines.append((r["name"], *shown, f"{r['predicted_loss']:.4f}", band, r["outside"]))
    print(f"{law.law}: L = {law.form.formula}")
    tables.show(tables.Table(heads, lines))


if __name__ == "__main__":
    command.end(main)
