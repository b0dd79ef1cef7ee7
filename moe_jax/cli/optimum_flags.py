"""The flags of `moe-jax optimum`, and the planner that they describe."""

import argparse
import dataclasses
import math

from moe_jax import errors
from moe_jax.cli import command
from moe_jax.flops import FORMULAS

_DESCRIPTION = """Compute-optimal plans under a fitted or published law.

  moe-jax optimum --law W/law.json --flops 1e18,1e20,1e22
  moe-jax optimum --law krajewski2024 --flops 1e20 --dense krajewski2024_dense --tokens 1e11 --parameters 3e10
  moe-jax optimum --law W/law.json --chip_hours 100,1000 --speeds W/results.csv    the best plan by the clock
  moe-jax optimum --law W/law.json --flops 1e20 --next cells.csv                   which runs to train next

E, G and K that the law's data did not have are refused, and left out of the search, unless --extrapolate."""

_SECONDS_AN_HOUR = 3600.0


@dataclasses.dataclass(frozen=True)
class Budget:
    """A budget as it was asked for, and as a planner takes it."""

    asked: float
    unit: str  # flops, chip_hours or dollars
    planned: float  # FLOPs, or chip-seconds


def parser() -> argparse.ArgumentParser:
    """The verb's parser."""
    p = command.parser("optimum", _DESCRIPTION)
    law = "a law.json, an isoflop_….json, or a published law: krajewski2024, 'krajewski2024:E=16, Table 8'"
    p.add_argument("--law", required=True, help=f"{law}; FILE.py: before it for a law of your own")
    counts = "what a symbol of the law counts, where the fit's column does not say: N=n_total_nonemb"
    p.add_argument("--counts", metavar="SYMBOL=COLUMN,…", help=counts)
    p.add_argument("--out", help="CSV (default optimum.csv beside the law.json; none for a published law)")
    _add_budgets(p)
    _add_choices(p)
    _add_shape(p)
    _add_next(p)
    return p


def _add_budgets(p: argparse.ArgumentParser) -> None:
    p.add_argument("--flops", metavar="F,…", help="budgets of training FLOPs")
    p.add_argument("--chip_hours", metavar="H,…", help="budgets of chip-hours, at the --speeds")
    p.add_argument("--dollars", metavar="M,…", help="budgets of money, at the --speeds and the --price")
    p.add_argument("--price", type=float, help="of a chip-hour")
    speeds = "results.csv of runs on your chips, or a plan.json made with --topology: tokens a second by shape"
    p.add_argument("--speeds", metavar="FILE", help=speeds)
    chips = "devices of each run of --speeds, where its table has no n_devices"
    p.add_argument("--chips", type=int, metavar="N", help=chips)
    p.add_argument("--cost", help=f"FLOP formula: {', '.join(FORMULAS)} (default the law's)")


def _add_choices(p: argparse.ArgumentParser) -> None:
    p.add_argument("--granularity", metavar="G,…", help="values of G to choose from (default 1,2,4,…,256)")
    rates = "values of E to choose from (default the one of the law's runs)"
    p.add_argument("--expansion_rate", metavar="E,…", help=rates)
    p.add_argument("--sparsity", metavar="S,…", help="values of S to choose from, in place of E = K / (1 − S)")
    p.add_argument("--active_rate", metavar="K,…", default="1", help="values of K to choose from (default 1)")
    p.add_argument("--extrapolate", action="store_true", help="plan with E, G and K that the law's data did not have")
    p.add_argument("--tokens", type=float, default=math.inf, help="limit on training tokens")
    unique = "different tokens that there are; more are repetitions (a law over U, such as muennighoff2023)"
    p.add_argument("--unique_tokens", type=float, default=math.inf, metavar="TOKENS", help=unique)
    p.add_argument("--parameters", type=float, default=math.inf, help="limit on all parameters")
    p.add_argument(
        "--memory", type=float, default=math.inf, metavar="BYTES", help="limit on the memory of all parameters"
    )
    p.add_argument("--bytes_per_parameter", type=float, default=16, help="default 16: AdamW; 2 to serve in bf16")
    dense = "law of dense models, for what a dense model needs (not needed for a law with E or S)"
    p.add_argument("--dense", metavar="LAW", help=dense)


def _add_shape(p: argparse.ArgumentParser) -> None:
    p.add_argument("--aspect", type=float, default=64, help="d_model / n_layers (default 64)")
    p.add_argument("--ff_matrices", type=int, default=2, help="2, or 3 for gated feed-forwards")
    p.add_argument("--ff_ratio", type=float, default=4, help="d_ff / d_model (default 4)")
    p.add_argument("--vocab_size", type=int, default=50257, help="default 50257")
    p.add_argument("--sequence_length", type=int, default=256, help="for formulas that count attention (default 256)")


def _add_next(p: argparse.ArgumentParser) -> None:
    cells = "candidate runs, a CSV or a config: which would narrow the optimum's intervals most per FLOP"
    p.add_argument("--next", metavar="CELLS", help=cells)
    p.add_argument("--picks", type=int, default=5, help="runs of --next to pick together (default 5)")


def budgets(flags: argparse.Namespace) -> list[Budget]:
    """The budgets, of one unit. Raises UserError for none, several units, and time without speeds or money without a
    price."""
    given = [unit for unit in ("flops", "chip_hours", "dollars") if getattr(flags, unit) is not None]
    if len(given) != 1:
        raise errors.UserError("give the budgets as one of --flops, --chip_hours or --dollars")
    unit = given[0]
    asked = numbers(getattr(flags, unit), f"--{unit}")
    if unit == "flops":
        idle = [flag for flag in ("speeds", "price", "chips") if getattr(flags, flag) is not None]
        if idle:
            raise errors.UserError(
                f"--{idle[0]} means nothing for --flops; --chip_hours or --dollars plan by the clock"
            )
        return [Budget(C, unit, C) for C in asked]
    if flags.speeds is None:
        raise errors.UserError(f"--{unit} needs --speeds: a results.csv of runs on your chips, or a plan.json")
    if (unit == "dollars") != (flags.price is not None):
        said = (
            "--dollars needs --price, of a chip-hour"
            if unit == "dollars"
            else "--price means nothing without --dollars"
        )
        raise errors.UserError(said)
    if flags.price is not None and not (flags.price > 0 and math.isfinite(flags.price)):
        raise errors.UserError(f"--price is {flags.price:g}, must be a number above 0")
    hours = [a / flags.price for a in asked] if unit == "dollars" else asked
    return [Budget(a, unit, _SECONDS_AN_HOUR * h) for a, h in zip(asked, hours, strict=True)]


def planner(flags: argparse.Namespace, law):
    """The planner of FLOPs that the flags describe."""
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
        counts=counted(flags.counts),
    )


def counted(text: str | None) -> dict[str, str]:
    """--counts: "N=n_total_nonemb" -> {"N": "n_total_nonemb"}. Raises UserError for anything else."""
    pairs = [part.partition("=") for part in (text or "").split(",") if text]
    if bad := [symbol for symbol, equals, column in pairs if not (symbol.strip() and equals and column.strip())]:
        raise errors.UserError(f"--counts has {bad[0]!r}, must be SYMBOL=COLUMN, …")
    return {symbol.strip(): column.strip() for symbol, _, column in pairs}


def _choices(flags: argparse.Namespace):
    from moe_jax.laws import Choices

    rates = _above_zero(flags.active_rate, "--active_rate")
    options = {"active_rate": rates, "extrapolate": flags.extrapolate}
    if flags.granularity:
        options["granularities"] = _above_zero(flags.granularity, "--granularity")
    if flags.expansion_rate and flags.sparsity:
        raise errors.UserError("--expansion_rate and --sparsity set the same choice; give one")
    if flags.expansion_rate:
        options["expansion_rates"] = _above_zero(flags.expansion_rate, "--expansion_rate")
    if flags.sparsity:
        shares = numbers(flags.sparsity, "--sparsity")
        if not all(0 <= s < 1 for s in shares):
            raise errors.UserError(f"--sparsity is {flags.sparsity}, must be within [0, 1)")
        if len(rates) > 1:
            raise errors.UserError("--sparsity with several --active_rate: give E instead, with --expansion_rate")
        options["expansion_rates"] = [rates[0] / (1 - s) for s in shares]
    return Choices(**options)


def _above_zero(text: str, flag: str) -> list[float]:
    values = numbers(text, flag)
    if not all(v > 0 for v in values):
        raise errors.UserError(f"{flag} is {text!r}, must be above 0")
    return values


def numbers(text: str, flag: str) -> list[float]:
    """The numbers of a flag. Raises UserError unless they are finite and not negative."""
    try:
        values = [float(part) for part in text.split(",")]
    except ValueError as e:
        raise errors.UserError(f"{flag} is {text!r}, must be numbers with commas between") from e
    if not all(math.isfinite(v) and v >= 0 for v in values):
        raise errors.UserError(f"{flag} is {text!r}, must be finite numbers, not negative")
    return values
