"""`moe-jax optimum`: N, D, G (and S) of lowest loss for each budget of FLOPs under a law, with intervals."""

import argparse
import math
import os
from collections.abc import Sequence
from dataclasses import replace

from etils import epath

from moe_jax import errors, files
from moe_jax import text as text_lib
from moe_jax.cli import command, optimum_isoflop, outputs, tables
from moe_jax.flops import FORMULAS

_DESCRIPTION = """Compute-optimal plans under a fitted or published law.

  moe-jax optimum --law W/law.json --flops 1e18,1e20,1e22
  moe-jax optimum --law krajewski2024 --flops 1e20 --dense krajewski2024_dense --tokens 1e11 --parameters 3e10"""


def main(argv: Sequence[str]) -> int:
    parser = _parser()
    flags = parser.parse_args(argv)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from moe_jax import laws
    from moe_jax.laws import user_file

    source = user_file.declare(flags.law)  # a law.json, or the name of a published law
    budgets = _numbers(flags.flops, "--flops")
    if (found := _isoflop(source)) is not None:
        command.refuse_idle(parser, flags, ("law", "flops", "out"), f"{found.kind}, which has no formula")
        rows = optimum_isoflop.optima(found, budgets)
        optimum_isoflop.show(found, rows)
    else:
        law = laws.find(source)
        planner = _planner(flags, law)
        dense = laws.find(flags.dense) if flags.dense else None
        plans = [planner.best(C) for C in budgets]
        ratios = [_ratios(planner, plan, dense) for plan in plans]
        _show(law, plans, ratios)
        rows = _rows(plans, ratios)
    _write(flags.out or _beside(source), rows)
    return errors.DONE


def _isoflop(source: str):
    """The iso-FLOP fits in a file; None where it is a law with a form, or no file."""
    from moe_jax import laws

    return laws.isoflop.load(source) if source.endswith(".json") and epath.Path(source).exists() else None


def _planner(flags: argparse.Namespace, law):
    from moe_jax import laws

    if not flags.unique_tokens > 0:
        raise errors.UserError(f"--unique_tokens is {flags.unique_tokens:g}, must be above 0")
    if math.isfinite(flags.unique_tokens) and "unique_tokens" not in law.form.columns.values():
        raise errors.UserError(
            f"--unique_tokens needs a law that says what reading tokens again is worth, as muennighoff2023; {law.name}"
            " does not: --tokens limits what it trains on"
        )
    return laws.Planner(
        law,
        cost=flags.cost,
        shape=laws.Shape(flags.aspect, flags.ff_matrices, flags.ff_ratio, flags.vocab_size, flags.sequence_length),
        choices=_choices(flags),
        limits=laws.Limits(
            flags.parameters, flags.memory, flags.bytes_per_parameter, flags.tokens, flags.unique_tokens
        ),
    )


def _beside(source: str) -> str | None:
    """optimum.csv beside a law.json; None for a published law."""
    return os.path.join(os.path.dirname(source), "optimum.csv") if source.endswith(".json") else None


def _write(out: str | None, rows: Sequence[dict]) -> None:
    if out:
        with outputs.writing(out, "--out"):
            files.write_atomic(epath.Path(out), files.to_csv(rows))
        print(f"optimum: {out}")


def _parser() -> argparse.ArgumentParser:
    p = command.parser("optimum", _DESCRIPTION)
    law = "a law.json, an isoflop_….json, or a published law: krajewski2024, 'krajewski2024:E=16, Table 8'"
    p.add_argument("--law", required=True, help=f"{law}; FILE.py: before it for a law of your own")
    p.add_argument("--flops", required=True, metavar="F,…", help="budgets of training FLOPs")
    p.add_argument("--cost", help=f"FLOP formula: {', '.join(FORMULAS)} (default the law's)")
    p.add_argument("--granularity", metavar="G,…", help="values of G to choose from (default 1,2,4,…,256)")
    p.add_argument(
        "--expansion_rate", metavar="E,…", help="values of E to choose from (default the one of the law's runs)"
    )
    p.add_argument("--sparsity", metavar="S,…", help="values of S to choose from, in place of E = K / (1 − S)")
    p.add_argument("--active_rate", type=float, default=1, help="K (default 1)")
    p.add_argument("--tokens", type=float, default=math.inf, help="limit on training tokens")
    unique = "different tokens that there are; more are repetitions (a law over U, such as muennighoff2023)"
    p.add_argument("--unique_tokens", type=float, default=math.inf, metavar="TOKENS", help=unique)
    p.add_argument("--parameters", type=float, default=math.inf, help="limit on all parameters")
    p.add_argument(
        "--memory", type=float, default=math.inf, metavar="BYTES", help="limit on the memory of all parameters"
    )
    p.add_argument("--bytes_per_parameter", type=float, default=16, help="default 16: AdamW; 2 to serve in bf16")
    dense = "law of dense models, for the FLOPs that a dense model needs (not needed for a law with E or S)"
    p.add_argument("--dense", metavar="LAW", help=dense)
    p.add_argument("--aspect", type=float, default=64, help="d_model / n_layers (default 64)")
    p.add_argument("--ff_matrices", type=int, default=2, help="2, or 3 for gated feed-forwards")
    p.add_argument("--ff_ratio", type=float, default=4, help="d_ff / d_model (default 4)")
    p.add_argument("--vocab_size", type=int, default=50257, help="default 50257")
    p.add_argument("--sequence_length", type=int, default=256, help="for formulas that count attention (default 256)")
    p.add_argument("--out", help="CSV (default optimum.csv beside the law.json; none for a published law)")
    return p


def _choices(flags: argparse.Namespace):
    from moe_jax.laws import Choices

    options = {"active_rate": flags.active_rate}
    if flags.granularity:
        options["granularities"] = _numbers(flags.granularity, "--granularity")
    if flags.expansion_rate and flags.sparsity:
        raise errors.UserError("--expansion_rate and --sparsity set the same choice; give one")
    if flags.expansion_rate:
        options["expansion_rates"] = _numbers(flags.expansion_rate, "--expansion_rate")
    if flags.sparsity:
        shares = _numbers(flags.sparsity, "--sparsity")
        if not all(0 <= s < 1 for s in shares):
            raise errors.UserError(f"--sparsity is {flags.sparsity}, must be within [0, 1)")
        options["expansion_rates"] = [flags.active_rate / (1 - s) for s in shares]
    return Choices(**options)


def _numbers(text: str, flag: str) -> list[float]:
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as e:
        raise errors.UserError(f"{flag} is {text!r}, must be numbers with commas between") from e
    if not all(math.isfinite(v) and v >= 0 for v in values):
        raise errors.UserError(f"{flag} is {text!r}, must be finite numbers, not negative")
    return values


def _ratios(planner, plan, dense) -> dict[str, tuple]:
    """Name -> (ratio of FLOPs, interval): FLOPs for the plan's loss of a dense model, and of the same MoE with G = 1.

    Both within the plan's limits; inf where the loss is never reached."""
    from moe_jax.laws import DENSE, Choices

    others = {}
    if dense is not None or {"E", "S"} & set(planner.law.form.symbols):
        others["dense"] = replace(planner, law=dense or planner.law, choices=DENSE)
    if "G" in planner.law.form.symbols:
        E, K = plan.values["expansion_rate"], plan.values["active_rate"]
        coarse = Choices(granularities=(1,), expansion_rates=(E,), active_rate=K)
        others["granularity_1"] = replace(planner, choices=coarse)
    return {name: planner.compute_ratio(plan, other) for name, other in others.items()}


_SHOWN = (
    ("loss", "loss"),
    ("n_total", "total"),
    ("n_active_nonemb", "active, no emb."),
    ("tokens", "tokens"),
    ("granularity", "G"),
    ("expansion_rate", "E"),
)


def _show(law, plans, ratios) -> None:
    chosen = "G" in law.form.symbols or "top_k" in law.form.columns.values()
    shown = [(k, head) for k, head in _SHOWN if k != "granularity" or chosen]
    heads = [
        ">FLOPs",
        *(f">{head}" for _, head in shown),
        *(f">FLOPs of {k.replace('_', ' ')}" for k in ratios[0]),
        "remark",
    ]
    rows = []
    for plan, ratio in zip(plans, ratios, strict=True):
        cells = [f"{plan.values['flops']:.3g}"]
        for k, _ in shown:
            write = (lambda v: f"{v:.3f}") if k == "loss" else (lambda v: text_lib.short(v))
            interval = plan.intervals.get(k)
            cells.append(write(plan.values[k]) + (f" ({write(interval[0])}–{write(interval[1])})" if interval else ""))
        for value, interval in ratio.values():
            cells.append(_times(value) + (f" ({_times(interval[0])}–{_times(interval[1])})" if interval else ""))
        remarks = [f"outside the fit: {', '.join(plan.outside)}"] if plan.outside else []
        remarks += [f"at the limit: {', '.join(plan.at_limit)}"] if plan.at_limit else []
        rows.append((*cells, "; ".join(remarks)))
    print(f"{law.name}: L = {law.form.formula}")
    tables.show(tables.Table(heads, rows))
    if unidentified := law.identifiability.unidentified:
        print(f"- not identified by its data: {', '.join(unidentified)}; the intervals include that")


def _times(ratio: float) -> str:
    return f"{ratio:.3g}×" if math.isfinite(ratio) else "never"


def _rows(plans, ratios) -> list[dict]:
    rows = []
    for plan, ratio in zip(plans, ratios, strict=True):
        row = dict(plan.values)
        for k, (low, high) in plan.intervals.items():
            row |= {f"{k}_low": low, f"{k}_high": high}
        for k, (value, interval) in ratio.items():
            row[f"flops_ratio_{k}"] = value
            if interval:
                row |= {f"flops_ratio_{k}_low": interval[0], f"flops_ratio_{k}_high": interval[1]}
        rows.append(row | {"outside": " ".join(plan.outside), "at_limit": "; ".join(plan.at_limit)})
    return rows
