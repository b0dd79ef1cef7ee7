"""`moe-jax optimum`: the N, D, G (and S) of lowest loss for each budget of FLOPs, under a law and its doubts."""

import math
import os
from collections.abc import Sequence

from etils import epath

from moe_jax import command, errors, files, optimum_isoflop, tables

_DESCRIPTION = """Compute-optimal plans under a fitted or published law.

  moe-jax optimum --law W/law.json --flops 1e18,1e20,1e22
  moe-jax optimum --law krajewski2024 --flops 1e20 --dense krajewski2024_dense --tokens 1e11 --parameters 3e10"""


def main(argv: Sequence[str]) -> int:
    flags = _parser().parse_args(argv)
    os.environ.setdefault("JAX_PLATFORMS", "cpu")
    from moe_jax import laws

    if (found := _isoflop(laws, flags.law)) is not None:
        return _of_isoflop(found, flags)
    law = laws.find(flags.law)
    dense = laws.find(flags.dense) if flags.dense else None
    shape = laws.Shape(flags.aspect, flags.ff_matrices, flags.ff_ratio, flags.vocabulary_size, flags.sequence_length)
    limits = laws.Limits(flags.parameters, flags.memory, flags.bytes_per_parameter, flags.tokens)
    plans = laws.optimum(
        law,
        _numbers(flags.flops, "--flops"),
        cost=flags.cost,
        shape=shape,
        choices=_choices(flags, laws.Choices),
        limits=limits,
    )
    ratios = [_ratios(law, plan, dense, cost=flags.cost, shape=shape, limits=limits) for plan in plans]
    _show(law, plans, ratios)
    _write(flags, _rows(plans, ratios))
    return errors.DONE


def _isoflop(laws, path: str):
    """The iso-FLOP fits in a file, None where it is a law with a form, or no file."""
    return laws.isoflop.load(path) if path.endswith(".json") and epath.Path(path).exists() else None


def _of_isoflop(found, flags) -> int:
    """N*, D* of parabolas, or N* by S of a surface: there is nothing to choose, limit or pay for."""
    meant = ("law", "flops", "out")
    if idle := [k for k, v in vars(flags).items() if k not in meant and v != _parser().get_default(k)]:
        raise errors.UserError(f"--{idle[0]} means nothing for {found.kind}, which knows its runs only")
    rows = optimum_isoflop.optima(found, _numbers(flags.flops, "--flops"))
    optimum_isoflop.show(found, rows)
    _write(flags, rows)
    return errors.DONE


def _write(flags, rows: Sequence[dict]) -> None:
    out = flags.out or (flags.law.endswith(".json") and os.path.join(os.path.dirname(flags.law), "optimum.csv"))
    if out:
        files.write_atomic(epath.Path(out), files.to_csv(rows))
        print(f"optimum: {out}")


def _parser():
    p = command.parser("optimum", _DESCRIPTION)
    p.add_argument(
        "--law",
        required=True,
        help="a law.json, an isoflop_….json, or a published law: krajewski2024, 'krajewski2024:E=16, Table 8'",
    )
    p.add_argument("--flops", required=True, metavar="F,…", help="budgets")
    p.add_argument(
        "--cost", help="FLOP formula: flops_krajewski2024, flops_abnar2025, flops_6nd, train_flops (default the law's)"
    )
    p.add_argument("--granularity", metavar="G,…", help="which G may be chosen (default 1,2,4,…,256)")
    p.add_argument("--expansion_rate", metavar="E,…", help="which E may be chosen (default what the law was fitted at)")
    p.add_argument("--sparsity", metavar="S,…", help="the same as shares, E = K / (1 − S)")
    p.add_argument("--active_rate", type=float, default=1, help="K (default 1)")
    p.add_argument("--tokens", type=float, default=math.inf, help="tokens that are there")
    p.add_argument("--parameters", type=float, default=math.inf, help="limit on all parameters")
    p.add_argument("--memory", type=float, default=math.inf, metavar="BYTES", help="limit on their memory")
    p.add_argument("--bytes_per_parameter", type=float, default=16, help="default 16: AdamW; 2 to serve in bf16")
    p.add_argument(
        "--dense", help="law of the dense models, for what dense would need (a law with E or S answers itself)"
    )
    p.add_argument("--aspect", type=float, default=64, help="d_model / n_blocks (default 64)")
    p.add_argument("--ff_matrices", type=int, default=2, help="2, or 3 for gated feed-forwards")
    p.add_argument("--ff_ratio", type=float, default=4, help="d_ff / d_model (default 4)")
    p.add_argument("--vocabulary_size", type=int, default=50257, help="default 50257")
    p.add_argument("--sequence_length", type=int, default=256, help="for formulas that count attention (default 256)")
    p.add_argument("--out", help="CSV (default optimum.csv beside the law.json; none for a published law)")
    return p


def _choices(flags, Choices):
    options = {"active_rate": flags.active_rate}
    if flags.granularity:
        options["granularities"] = _numbers(flags.granularity, "--granularity")
    if flags.expansion_rate and flags.sparsity:
        raise errors.UserError("--expansion_rate and --sparsity say the same thing; give one")
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


def _ratios(law, plan, dense, **options) -> dict[str, tuple]:
    """Name -> (ratio of FLOPs, band): what dense needs for the plan's loss, and what the same MoE with G = 1 does,
    within the plan's limits; inf where it never gets there."""
    import numpy as np

    from moe_jax.laws.optima import compute_ratio

    out = {}
    if dense is not None or {"E", "S"} & set(law.form.symbols):
        out["dense"] = compute_ratio(law, plan, dense or law, np.array([[1.0, 1, 1]]), **options)
    if "G" in law.form.symbols:
        coarse = np.array([[plan.values["expansion_rate"], plan.values["active_rate"], 1]])
        out["granularity_1"] = compute_ratio(law, plan, law, coarse, **options)
    return out


_SHOWN = (
    ("loss", "loss"),
    ("n_total", "total"),
    ("n_active_nonemb", "active, no emb."),
    ("tokens", "tokens"),
    ("granularity", "G"),
    ("expansion_rate", "E"),
)


def _show(law, plans, ratios) -> None:
    shown = [(k, head) for k, head in _SHOWN if k != "granularity" or "G" in law.form.symbols]
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
            write = (lambda v: f"{v:.3f}") if k == "loss" else (lambda v: tables.short(v))
            band = plan.bands.get(k)
            cells.append(write(plan.values[k]) + (f" ({write(band[0])}–{write(band[1])})" if band else ""))
        for value, band in ratio.values():
            cells.append(_times(value) + (f" ({_times(band[0])}–{_times(band[1])})" if band else ""))
        remarks = [f"outside the fit: {', '.join(plan.outside)}"] if plan.outside else []
        remarks += [f"at the limit: {', '.join(plan.at_limit)}"] if plan.at_limit else []
        rows.append((*cells, "; ".join(remarks)))
    print(f"{law.law}: L = {law.form.formula}")
    tables.show(tables.Table(heads, rows))
    if law.unidentified:
        print(f"- not identified by its data: {', '.join(law.unidentified)}; the bands carry that through")


def _times(ratio: float) -> str:
    return f"{ratio:.3g}×" if math.isfinite(ratio) else "never"


def _rows(plans, ratios) -> list[dict]:
    rows = []
    for plan, ratio in zip(plans, ratios, strict=True):
        row = dict(plan.values)
        for k, (low, high) in plan.bands.items():
            row |= {f"{k}_low": low, f"{k}_high": high}
        for k, (value, band) in ratio.items():
            row[f"flops_ratio_{k}"] = value
            if band:
                row |= {f"flops_ratio_{k}_low": band[0], f"flops_ratio_{k}_high": band[1]}
        rows.append(row | {"outside": " ".join(plan.outside), "at_limit": "; ".join(plan.at_limit)})
    return rows


if __name__ == "__main__":
    command.end(main)
