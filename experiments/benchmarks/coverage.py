"""Coverage of intervals on planted laws:  python -m experiments.benchmarks.coverage --out build/coverage.jsonl

Each replication plants a law on a design, adds noise, fits it and asks which intervals hold the truth: of coefficients
that are said to be identified, of predictions inside and outside the design, of optima. Degenerate designs count the
coefficients that should have been called not identified and were not. Blocks of replications are appended to --out, so
that a run that was stopped goes on where it was; the defaults take hours."""

import argparse
import json
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from moe_jax import laws
from moe_jax.cli import tables

BLOCK = 10  # replications that are written together
OBJECTIVES = {"huber": laws.Objective(), "least_squares": laws.Objective(huber=np.inf)}
BANDS = ((0.77, 0.83), (0.75, 0.85))


@dataclass(frozen=True)
class Case:
    """A law, a design and its noise.

    axes: makes the columns by symbol; noise: standard deviation of ln loss; budget: FLOPs of the optimum asked, None
    without; must_flag: coefficients that this design cannot determine."""

    law: laws.Law
    axes: Callable[[np.random.Generator], dict[str, np.ndarray]]
    noise: float
    kind: str = "paper"  # paper | spread | degenerate
    fix: dict[str, float] = field(default_factory=dict)
    budget: float | None = None
    choices: laws.Choices = field(default_factory=laws.Choices)
    must_flag: tuple[str, ...] = ()


def grid(**axes) -> Callable[[np.random.Generator], dict[str, np.ndarray]]:
    """Every combination of the values of each axis."""
    values = [np.ravel(v) for v in np.meshgrid(*map(np.asarray, axes.values()), indexing="ij")]
    return lambda rng: dict(zip(axes, (v.astype(float) for v in values), strict=True))


def hoffmann(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """240 runs over the sizes and budgets of Hoffmann et al. 2022."""
    N = np.exp(rng.uniform(np.log(5e7), np.log(1e10), 240))
    return {"N": N, "D": np.exp(rng.uniform(np.log(6e18), np.log(3e21), 240)) / (6 * N)}


def abnar(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """Iso-FLOP sets over N and sparsity, as in Abnar et al. 2025."""
    C, S, N = (
        v.ravel()
        for v in np.meshgrid(
            [3e19, 6e19, 1e20, 3e20, 1e21], [0, 0.25, 0.5, 0.75, 0.9, 0.95], np.geomspace(2e8, 2e10, 6), indexing="ij"
        )
    )
    return {"N": N, "D": C / (6 * N * (1 - 0.75 * S)), "S": S}


def together(rng: np.random.Generator) -> dict[str, np.ndarray]:
    """D = 20 N along the whole design."""
    N = np.geomspace(2e7, 5e9, 30)
    return {"N": N, "D": 20 * N}


_SIZES = (135266304, 304349184, 541065216, 1082130432, 2113536000)
_TABLE_3 = grid(N=_SIZES, D=(16.4e9, 32.8e9, 65.5e9), G=(1, 2, 4, 8, 16))
_WIDE = grid(N=np.geomspace(2e7, 5e9, 6), D=np.geomspace(4e8, 1e11, 6))
_KRAJEWSKI, _E64 = laws.published("krajewski2024"), laws.Choices(expansion_rates=[64], granularities=[1, 2, 4, 8, 16])
CASES = {
    "chinchilla": Case(laws.published("chinchilla", "besiroglu2024"), hoffmann, 0.006, budget=1e22),
    "krajewski2024": Case(_KRAJEWSKI, _TABLE_3, 0.004, fix={"c": 0.472}, budget=1e21, choices=_E64),
    "krajewski2024 c free": Case(_KRAJEWSKI, _TABLE_3, 0.004, budget=1e21, choices=_E64),
    "krajewski2024_dense": Case(
        laws.published("krajewski2024_dense"),
        grid(N=np.geomspace(3e7, 3e9, 4), D=(4e9, 16e9, 64e9)),
        0.004,
        fix={"c": 0.472},
        budget=1e21,
    ),
    "gadre2024": Case(
        laws.published("gadre2024"),
        lambda rng: (lambda a: {"N": a["N"], "D": a["N"] * a["M"]})(
            grid(N=np.geomspace(1.1e7, 4.1e8, 4), M=(5, 20, 80, 320, 640))(rng)
        ),
        0.004,
        budget=1e21,
    ),
    "abnar2025": Case(laws.published("abnar2025"), abnar, 0.003),
    "clark2022": Case(
        laws.published("clark2022"),
        grid(N=np.geomspace(1.5e7, 1.3e9, 6), E=(1, 2, 4, 8, 16, 32, 64, 128, 256, 512)),
        0.004,
    ),
    "frantar2023": Case(
        laws.published("frantar2023"),
        grid(N=np.geomspace(1e6, 8e7, 4), D=np.geomspace(6e9, 7e10, 3), S=(0, 0.5, 0.75, 0.875)),
        0.004,
    ),
    "small": Case(
        laws.published("chinchilla", "besiroglu2024"),
        grid(N=np.geomspace(1e7, 3e9, 4), D=np.geomspace(3e8, 1e11, 4)),
        0.005,
        "spread",
        budget=1e22,
    ),
    "wide": Case(laws.published("chinchilla"), _WIDE, 0.005, "spread", budget=1e22),
    "narrow N": Case(
        laws.published("chinchilla"),
        grid(N=np.geomspace(1e8, 1.3e8, 5), D=np.geomspace(1e9, 1e11, 6)),
        0.005,
        "degenerate",
        must_flag=("A", "alpha"),
    ),
    "D = 20 N": Case(
        laws.published("chinchilla"), together, 0.005, "degenerate", must_flag=("A", "alpha", "B", "beta")
    ),
    "two G": Case(
        _KRAJEWSKI,
        grid(N=np.geomspace(1e8, 1e10, 4), D=np.geomspace(4e9, 4e11, 4), G=(1, 2)),
        0.004,
        "degenerate",
        must_flag=("g", "gamma", "a"),
    ),
}


def main() -> None:
    flags = _parser().parse_args()
    cases = flags.cases.split(",") if flags.cases else list(CASES)
    done = read(flags.out)
    began = time.perf_counter()
    for name in cases:
        for objective in flags.objectives.split(","):
            for first in range(0, flags.replications, BLOCK):
                last = min(first + BLOCK, flags.replications)
                key = [name, objective, first, last, flags.bootstrap, flags.starts, flags.method]
                if key in [b["key"] for b in done]:
                    continue
                block = {"key": key, **measure(CASES[name], OBJECTIVES[objective], range(first, last), flags)}
                done.append(block)
                append(flags.out, block)
    shown = [b for b in done if b["key"][0] in cases and b["key"][4:] == [flags.bootstrap, flags.starts, flags.method]]
    show(shown)
    seconds = sum(b["seconds"] for b in shown)
    print(f"{time.perf_counter() - began:.0f} s now, {seconds:.0f} s of computing behind the table")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("--out", default="", help="a JSON Lines file that blocks are appended to, and read from")
    add("--replications", type=int, default=1000, help="of each case and objective (default %(default)s)")
    add("--bootstrap", type=int, default=200, help="samples of each fit (default %(default)s)")
    add("--starts", type=int, default=32, help="starts of each fit (default %(default)s)")
    add("--method", default="", help="of the intervals: residuals, wild or pairs (default: as a fit chooses)")
    add("--cases", default="", help=f"of {', '.join(CASES)} (default all)")
    add("--objectives", default=",".join(OBJECTIVES), help="default %(default)s")
    return parser


def measure(case: Case, objective: laws.Objective, seeds: range, flags) -> dict:
    """What the intervals of a block covered: quantity -> [covered, asked], and how often coefficients were flagged."""
    began, covered, asked, flagged = time.perf_counter(), Counter(), Counter(), Counter()
    failures, any_flagged = 0, 0
    for seed in seeds:
        law, range_ = replicate(case, objective, seed, flags)
        unidentified = law.identifiability.unidentified
        flagged.update(k for k in unidentified if k not in case.fix)
        any_flagged += any(k not in case.fix for k in unidentified)
        failures += any(k not in unidentified for k in case.must_flag)
        for name, (truth, low, high) in quantities(case, law, range_):
            asked[name] += 1
            covered[name] += bool(low <= truth <= high)
    return {
        "seconds": time.perf_counter() - began,
        "coverage": {k: [covered[k], n] for k, n in asked.items()},
        "flagged": dict(flagged),
        "any_flagged": any_flagged,
        "failures": failures,
        "replications": len(seeds),
    }


def replicate(case: Case, objective: laws.Objective, seed: int, flags) -> tuple[laws.Law, dict[str, np.ndarray]]:
    """A law fitted to planted losses, and the axes by symbol."""
    rng = np.random.default_rng(seed)
    axes = case.axes(rng)
    loss = case.law.loss_at(axes)
    table = {case.law.form.columns[s]: v for s, v in axes.items()}
    table["eval_loss"] = loss * np.exp(case.noise * rng.standard_normal(len(loss)))
    resampling = laws.Resampling(samples=flags.bootstrap, method=flags.method)
    options = {"objective": objective, "fix": case.fix, "start": flags.starts, "resampling": resampling}
    return laws.fit(table, law=case.law.name, **options).law, axes


def quantities(case: Case, law: laws.Law, axes: dict[str, np.ndarray]) -> Iterator[tuple[str, tuple]]:
    """(name, (truth, low, high)) of identified coefficients, predictions and optima."""
    for name, interval in law.intervals.items():
        if name not in law.identifiability.unidentified and name not in case.fix:
            yield name, (case.law.coefficients[name], *interval)
    shares = law.form.shares
    middle = {s: v.mean() if s in shares else np.exp(np.log(v).mean()) for s, v in axes.items()}
    beyond = {s: 4 * v.max() if s in "ND" else np.median(v) for s, v in axes.items()}
    for name, point in (("loss in the middle", middle), ("loss at 4 × N and D", beyond)):
        _, low, high = law.predict(point)
        yield name, (float(case.law.loss_at(point)), float(low), float(high))
    if case.budget:
        true, plan = (laws.Planner(of, choices=case.choices).best(case.budget) for of in (case.law, law))
        for name, column in (("N*", "n_active_nonemb"), ("D*", "tokens")):
            yield name, (true.values[column], *plan.intervals[column])


def append(out: str, block: dict) -> None:
    """Adds a block to the file, if there is one."""
    if out:
        Path(out).parent.mkdir(parents=True, exist_ok=True)
        with open(out, "a") as file:
            file.write(json.dumps(block) + "\n")


def read(out: str) -> list[dict]:
    """The blocks in the file; a last line that was cut off is left out, and computed again."""
    if not out or not Path(out).exists():
        return []
    lines = Path(out).read_text().splitlines(keepends=True)
    kept = [line for line in lines if line.endswith("\n")]
    if len(kept) < len(lines):
        Path(out).write_text("".join(kept))
    return [json.loads(line) for line in kept]


def show(blocks: list[dict]) -> None:
    """A row for each case and objective, and how many quantities lie within the bands."""
    rows, every = [], []
    for name, objective in dict.fromkeys((b["key"][0], b["key"][1]) for b in blocks):
        some = [b for b in blocks if b["key"][:2] == [name, objective]]
        total, covered, asked, flagged = sum(b["replications"] for b in some), Counter(), Counter(), Counter()
        for b in some:
            flagged.update(b["flagged"])
            for k, (hits, n) in b["coverage"].items():
                covered[k] += hits
                asked[k] += n
        shares = {k: covered[k] / n for k, n in asked.items() if n >= total / 2}
        if CASES[name].kind == "paper":
            every += shares.values()
        said = " ".join(f"{k} {v:.2f}" for k, v in shares.items())
        apart = " ".join(f"{k} {n / total:.2f}" for k, n in flagged.items())
        failures = sum(b["failures"] for b in some) if CASES[name].must_flag else "–"
        any_flagged = sum(b["any_flagged"] for b in some) / total
        rows.append((name, objective, str(total), said, f"{any_flagged:.2f}", apart or "–", str(failures)))
    heads = ("design", "objective", ">runs", "covered by 80% intervals", ">any flagged", "flagged", ">missed")
    tables.show(tables.Table(heads, rows))
    for low, high in BANDS if every else ():
        inside = sum(low <= share <= high for share in every)
        print(f"papers' designs: {inside} of {len(every)} quantities covered at {low} to {high}")


if __name__ == "__main__":
    main()
