"""Every fit of the page, made once: the paper's law and its dense twin on third-party losses and on our runs."""

import dataclasses
from collections.abc import Mapping

import pandas as pd

from moe_jax import laws
from moe_jax.laws import presets
from moe_jax.report.papers.refits import fit_or_reason
from moe_jax.report.papers.sources import Sources
from moe_jax.text import short

_BOOTSTRAP = laws.Resampling(samples=100, fraction=0.8)  # the paper's; drawn with replacement, as its code does
_SIZES = {3145728: "3M", 7077888: "7M", 12582912: "13M", 25165824: "25M", 49152000: "49M", 84934656: "85M"}


@dataclasses.dataclass(frozen=True)
class Fits:
    """Tables of losses have the columns N, D, G, loss and size. A fit that our runs do not allow is a sentence that
    says why."""

    runs: pd.DataFrame | None  # third-party losses of Table 3
    third_party: laws.Fit | None
    third_party_held_out: laws.Fit | None  # without the 20% lowest losses
    third_party_dense: laws.Fit | None
    our_runs: pd.DataFrame | None  # Mixtures of Experts
    ours: laws.Fit | str | None
    ours_dense: laws.Fit | str | None


def fit_all(sources: Sources) -> Fits:
    """Fits whatever the sources hold."""
    runs = _third_party(sources)
    third_party = held_out = None
    if runs is not None:
        third_party = _fit_moe(runs, resampling=_BOOTSTRAP)
        held_out = _fit_moe(runs, split=laws.Split(holdout="lowest:0.2"))
    dense_runs, third_party_dense = sources.third_party("dense_losses_recovered.csv"), None
    if dense_runs is not None:
        columns = {"n_active_nonemb": "N_nonemb", "tokens": "D_tokens"}
        third_party_dense = _fit_dense(dense_runs, loss="final_train_loss", columns=columns)
    our_runs = ours = ours_dense = None
    if sources.ours is not None:
        our_runs, dense = _our_runs(sources.ours)
        ours, ours_dense = fit_or_reason(_fit_moe, our_runs), fit_or_reason(_fit_dense, dense)
    return Fits(runs, third_party, held_out, third_party_dense, our_runs, ours, ours_dense)


def _third_party(sources: Sources) -> pd.DataFrame | None:
    table = sources.third_party("finegrained_moe_losses_recovered.csv")
    if table is None:
        return None
    names = {"N_total_nonemb": "N", "D_tokens": "D", "final_train_loss": "loss"}
    table = table.rename(columns=names).assign(size=table["N_active_nonemb"].map(_SIZES), expansion_rate=table["E"])
    return table[table["in_paper_table3"] == 1]


def _our_runs(rows: pd.DataFrame) -> tuple[pd.DataFrame, pd.DataFrame]:
    """(Mixtures of Experts, dense models)."""
    rows = rows.assign(
        N=rows["n_total_nonemb"], D=rows["tokens"], G=rows["granularity"], loss=rows["eval_loss"],
        size=rows["n_active_nonemb"].map(short),
    )  # fmt: skip
    return rows[rows["G"].notna()], rows[rows["G"].isna()]


def _fit_moe(table: pd.DataFrame, **options) -> laws.Fit:
    paper = presets.preset("krajewski2024")
    options = {"resampling": laws.Resampling(samples=0)} | options
    columns = {"n_total_nonemb": "N", "tokens": "D", "granularity": "G"}  # what N counts, for the plans
    return laws.fit(table, loss="loss", columns=columns, objective=paper.objective, fix=paper.fix, **options)


def _fit_dense(table: pd.DataFrame, loss: str = "loss", columns: Mapping[str, str] | None = None) -> laws.Fit:
    """The objective is that of the authors' code for dense models: Huber .1 on ln L, 1e-5·Σ|θ|, c = .472."""
    objective = laws.Objective(space="log", huber=0.1, l1=1e-5)
    columns = columns or {"n_active_nonemb": "N", "tokens": "D"}
    options = {"loss": loss, "columns": columns, "objective": objective, "fix": {"c": 0.472}}
    return laws.fit(table, "krajewski2024_dense", resampling=laws.Resampling(samples=0), **options)
