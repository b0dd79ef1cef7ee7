"""The train step, compiled for TPU slices on a machine without TPUs: does it fit, and does it do more than it must?

    python -m experiments.benchmarks.tpu_compiles [--cases=3m,56b] [--out=tpu_compiles.json]

Needs libtpu (pip install '.[plan]'). The cases are those of tests/tpu_cases.py, each a process of its own; what --out
holds already is not compiled again.
"""

import argparse
import dataclasses
import json
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from moe_jax.plan import aot
from tests.tpu_cases import CASES, PAPER_CASES, Case, compile_case, least_exchange, least_expert_flops

ALL = CASES | PAPER_CASES


def table_row(case: Case, compiled: aot.Compiled) -> tuple[str, ...]:
    gib = f"{compiled.bytes_per_device / 2**30:.2f} of {compiled.hbm_bytes / 2**30:.2f}"
    flops = compiled.expert_flops - compiled.recomputed_expert_flops
    exchange = least_exchange(case)
    others = {kind: size for kind, size in compiled.collectives.items() if kind != "all-to-all"}
    others |= {f"{kind} between slices": size for kind, size in compiled.between_slices.items()}
    slices = f"{case.topology.slices} × " if case.topology.slices > 1 else ""
    return (
        case.what,
        f"{slices}{case.topology.name}",
        "×".join(str(size) for size in dataclasses.astuple(case.mesh)),
        gib,
        "yes" if compiled.fits else "NO",
        f"{flops / least_expert_flops(case):.3f}",
        f"{compiled.recomputed_expert_flops / least_expert_flops(case):.3f}",
        f"{compiled.collectives.get('all-to-all', 0) / exchange:.3f}" if exchange else "–",
        ", ".join(f"{kind} {size / 2**20:,.0f}" for kind, size in sorted(others.items())),
        f"{compiled.compile_seconds:.0f}",
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cases", default=",".join(ALL), help=f"of {', '.join(ALL)}")
    parser.add_argument("--out", type=Path, default=Path("tpu_compiles.json"), help="kept results, case by case")
    args = parser.parse_args()
    table = Table(
        "step of", "slice", "replica×data×expert", "GiB a device", "fits", "expert FLOPs ÷ least", "recomputed ÷ least",
        "all_to_all ÷ least", "other collectives, MiB", "s",
    )  # fmt: skip
    kept = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.cases.split(","):
        if name not in ALL:
            parser.error(f"--cases: {name!r} is none of {', '.join(ALL)}")
        if name not in kept:
            kept[name] = compile_case(ALL[name]).to_dict()
            args.out.write_text(json.dumps(kept, indent=1))
        cells = table_row(ALL[name], aot.Compiled.from_dict(kept[name]))
        Console(stderr=True).print(*cells)  # the table comes at the end
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    main()
