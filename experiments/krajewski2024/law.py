"""The reliability of the published law: fits with and without its penalty, their plans for 1e24 FLOPs, profiles.

    python experiments/krajewski2024/law.py        (two minutes; prints the tables of README.md, writes figures/law_*)

Reads the 75 recovered losses of Table 3 in MOE_JAX_REFERENCE (default ../shared/reference beside the checkout).
"""

import dataclasses
from pathlib import Path

import numpy as np
import pandas as pd
from matplotlib.figure import Figure

from moe_jax import laws
from moe_jax import text as text_lib
from moe_jax.cli import tables
from moe_jax.laws import plots, presets
from moe_jax.report.papers.sources import reference_folder

HERE = Path(__file__).parent
REFERENCE = reference_folder()
COLUMNS = {"N": "N_total_nonemb", "D": "D_tokens", "G": "G", "expansion_rate": "E"}
PAPER = presets.preset("krajewski2024").objective
BARE = dataclasses.replace(PAPER, l1=0.0)
FITS = {
    "the paper's: penalty 5e-5, c = .472": (PAPER, {"c": 0.472}),
    "no penalty, c = .472": (BARE, {"c": 0.472}),
    "no penalty, c free": (BARE, {}),
    "no penalty, c free, ln L, Huber 1e-3": (laws.Objective(), {}),
}
BUDGET = 1e24
COARSE = laws.Choices(granularities=(1,), expansion_rates=(64,))
C_VALUES = (0.01, 0.2, 0.4, 0.472, 0.6, 0.8, 1.0, 1.2)
PENALTIES = (0.0, 1e-6, 1e-5, 2e-5, 5e-5, 1e-4)


def main() -> None:
    runs = pd.read_csv(REFERENCE / "finegrained_moe_losses_recovered.csv")
    fits = {name: fit(runs, objective, fix, samples=1000) for name, (objective, fix) in FITS.items()}
    coefficients(fits)
    for name, file in (("the paper's: penalty 5e-5, c = .472", "penalty"), ("no penalty, c = .472", "no_penalty")):
        plots.fit(fits[name]).savefig(HERE / "figures" / f"law_fit_{file}.png", dpi=110)
    consequences(fits, {name: fit(runs, o, f, holdout="lowest:0.2") for name, (o, f) in FITS.items()})
    profile_of_c(fits["no penalty, c free"])
    surfaces(runs)
    print(f"figures: {HERE / 'figures'}")


def fit(runs: pd.DataFrame, objective: laws.Objective, fix: dict, samples: int = 0, holdout: str = "") -> laws.Fit:
    return laws.fit(
        runs,
        loss="final_train_loss",
        columns=COLUMNS,
        where="in_paper_table3 == 1",
        objective=objective,
        fix=fix,
        split=laws.Split(holdout=holdout),
        resampling=laws.Resampling(samples=samples),
    )


def coefficients(fits: dict[str, laws.Fit]) -> None:
    names = next(iter(fits.values())).law.form.names
    rows = []
    for name, fitted in fits.items():
        law = fitted.law
        cells = []
        for k in names:
            low, high = law.intervals[k]
            cells.append(
                f"{law.coefficients[k]:.4g}" + ("" if k in law.fixed_coefficients else f" ({low:.3g}–{high:.3g})")
            )
        rows.append((name, *cells, " ".join(law.identifiability.unidentified)))
    tables.show(tables.Table(("fit", *names, "not identified"), rows))


def consequences(fits: dict[str, laws.Fit], held: dict[str, laws.Fit]) -> None:
    """Errors and plans for the budget: the differences between fits that describe the same 75 runs."""
    rows = []
    for name, fitted in fits.items():
        law = fitted.law
        planner = laws.Planner(law)
        plan = planner.best(BUDGET)
        ratio, interval = planner.compute_ratio(plan, dataclasses.replace(planner, choices=COARSE))
        rows.append(
            (
                name,
                f"{law.errors['rmse_fit']:.4f}",
                f"{held[name].law.errors['rmse_holdout']:.4f}",
                *(with_interval(plan, k, text_lib.short) for k in ("tokens", "n_active_nonemb")),
                with_interval(plan, "granularity", "{:g}".format),
                with_interval(plan, "loss", "{:.3f}".format),
                f"{ratio:.3g} ({interval[0]:.3g}–{interval[1]:.3g})",
            )
        )
    heads = ("fit", "RMSE", "RMSE of the lowest 20%, held out", "D*", "N_act*", "G*", "loss*", "G = 1 needs, × FLOPs")
    tables.show(tables.Table(heads, rows))


def with_interval(plan: laws.Plan, key: str, write) -> str:
    low, high = plan.intervals[key]
    return f"{write(plan.values[key])} ({write(low)}–{write(high)})"


def profile_of_c(fitted: laws.Fit) -> None:
    table = laws.profile(fitted, "c", np.linspace(0.005, 1.5, 40))
    low, high = laws.accepted(table)
    print(f"profile of c: the data accept {low:.2f} to {high:.2f} at 80% (tried from 0.005)")
    plots.profile(table, "c").savefig(HERE / "figures" / "law_profile_c.png", dpi=110)


def surfaces(runs: pd.DataFrame) -> None:
    """RMSE, held-out RMSE, D* and G* at the budget for every (penalty, c)."""
    shape = (len(PENALTIES), len(C_VALUES))
    rmse, held, tokens, granularity = (np.zeros(shape) for _ in range(4))
    for i, penalty in enumerate(PENALTIES):
        for j, c in enumerate(C_VALUES):
            objective = dataclasses.replace(PAPER, l1=penalty)
            law = fit(runs, objective, {"c": c}).law
            plan = laws.Planner(law).best(BUDGET)
            rmse[i, j] = law.errors["rmse_fit"]
            held[i, j] = fit(runs, objective, {"c": c}, holdout="lowest:0.2").law.errors["rmse_holdout"]
            tokens[i, j], granularity[i, j] = plan.values["tokens"], plan.values["granularity"]
    figure = Figure(figsize=(15, 4), layout="constrained")
    panels = figure.subplots(1, 3)
    for ax, values, title, write in (
        (panels[0], rmse, "RMSE of the fit, nats", "{:.4f}".format),
        (panels[1], held, "RMSE of the 20% lowest losses, held out", "{:.4f}".format),
        (panels[2], np.log10(tokens), f"D* at {BUDGET:.0e} FLOPs (and G*)", None),
    ):
        ax.imshow(values, cmap="viridis_r" if write else "viridis", aspect="auto")
        middle = (values.min() + values.max()) / 2
        for (i, j), v in np.ndenumerate(values):
            text = write(v) if write else f"{text_lib.short(tokens[i, j], 2)}\n({granularity[i, j]:g})"
            bright = v > middle if not write else v < middle
            ax.text(j, i, text, ha="center", va="center", fontsize=8, color="black" if bright else "white")
        ax.set_xticks(range(len(C_VALUES)), [f"{c:g}" for c in C_VALUES])
        ax.set_yticks(range(len(PENALTIES)), [f"{p:g}" for p in PENALTIES])
        ax.set(xlabel="c, fixed", ylabel="penalty per |θ|", title=title)
    figure.savefig(HERE / "figures" / "law_profile_c_penalty.png", dpi=110)
    rows = [
        (
            f"{p:g}",
            *(
                f"{rmse[i, j]:.4f} / {held[i, j]:.4f} / {text_lib.short(tokens[i, j], 2)} / {granularity[i, j]:g}"
                for j in range(shape[1])
            ),
        )
        for i, p in enumerate(PENALTIES)
    ]
    print(f"RMSE / RMSE held out / D* / G* at {BUDGET:.0e} FLOPs:")
    tables.show(tables.Table(("penalty", *(f"c = {c:g}" for c in C_VALUES)), rows))


if __name__ == "__main__":
    main()
