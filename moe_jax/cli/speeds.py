"""`--speeds`: how fast shapes train, from results.csv of measured runs or from plan.json."""

from collections.abc import Mapping

import numpy as np
import pandas as pd
from etils import epath

from moe_jax import files
from moe_jax.cli import input_tables
from moe_jax.errors import UserError


def read(path: str, chips: int | None = None):
    """The laws.speed.Speed of a file, and a sentence on where it comes from. Raises UserError for a file without them.

    chips: devices of each measured run, where the table does not say."""
    from moe_jax.laws import speed

    runs, source = _planned(path) if path.endswith(".json") else _measured(path, chips)
    found = speed.fit(runs)
    return found, f"speeds: {found}; {source}"


def _planned(path: str) -> tuple[Mapping, str]:
    """From plan.json: predicted, with the efficiency that the plan was made with."""
    if not epath.Path(path).exists():
        raise UserError(f"--speeds {path}: there is no such file; `moe-jax plan --topology` writes one")
    rows = [r for r in files.read_sealed(epath.Path(path)).get("runs", []) if r.get("chip_hours")]
    if not rows:
        raise UserError(f"--speeds {path}: no run has chip_hours; plan with --topology, which compiles the steps")
    table = pd.DataFrame(rows)
    seconds = 3600.0 * table["chip_hours"]
    where = ", ".join(sorted(table["topology"].astype(str).unique()))
    return _runs(table, table["tokens"] / seconds, path), f"predicted by {path} for {where}, nothing was measured"


def _measured(path: str, chips: int | None) -> tuple[Mapping, str]:
    """From results.csv: tokens a second of the steps; else of the whole run, with its compile and evaluations."""
    table = input_tables.read(path, "--speeds")
    if "status" in table.columns:
        table = table[table["status"] == "done"]
    if "device" in table.columns and table["device"].nunique() > 1:
        raise UserError(f"--speeds {path}: its runs are of several devices ({', '.join(table['device'].unique())})")
    stepped = "tokens_per_second" in table.columns and table["tokens_per_second"].notna().any()
    if stepped:
        table = table[table["tokens_per_second"].notna()]
        rate = table["tokens_per_second"]
    elif "wall_seconds" in table.columns and (own := next((c for c in ("own_tokens", "tokens") if c in table), None)):
        rate = table[own] / table["wall_seconds"]
    else:
        raise UserError(f"--speeds {path}: has no tokens_per_second, nor tokens and wall_seconds, of its runs")
    if "n_devices" in table.columns and table["n_devices"].notna().all():
        devices = table["n_devices"]
    elif chips is None or chips < 1:
        raise UserError(f"--speeds {path}: does not say on how many chips its runs ran; --chips does (1 or more)")
    else:
        devices = chips
    device = f" on {table['device'].iloc[0]}" if "device" in table.columns and len(table) else ""
    what = "" if stepped else ", whole runs with their compiles and evaluations"
    return _runs(table, rate / devices, path), f"measured in {path}{device}{what}"


def _runs(table: pd.DataFrame, tokens_per_chip_second: pd.Series, path: str) -> Mapping:
    for column in ("d_model", "train_flops", "tokens"):
        if column not in table.columns:
            raise UserError(f"--speeds {path}: has no column {column}, which tells what its steps computed")
    found = {"d_model": table["d_model"].to_numpy(float)}
    for column in ("granularity", "active_rate", "expansion_rate"):
        values = table[column] if column in table.columns else pd.Series(1.0, table.index)
        found[column] = pd.to_numeric(values, errors="coerce").fillna(1.0).to_numpy(float)  # a dense run has none
    found["flops_per_token"] = (table["train_flops"] / table["tokens"]).to_numpy(float)
    found["tokens_per_chip_second"] = np.asarray(tokens_per_chip_second, float)
    return found
