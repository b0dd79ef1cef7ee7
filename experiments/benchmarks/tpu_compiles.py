"""The train step compiled for TPU slices on a machine that has none: does it fit, does it do more than it must?

    python experiments/benchmarks/tpu_compiles.py [--cases=3m,56b] [--out=tpu_compiles.json]

Needs libtpu (pip install '.[plan]'). Each case is a process of its own, and what --out holds already is not compiled
again. Depth hardly matters to the time, since blocks are scanned; the papers' shapes have their real one because memory
grows with it, the others have few.
"""

import argparse
import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from rich.console import Console
from rich.table import Table

from moe_jax import aot, configfile, counts
from moe_jax.config import Config, MeshConfig

ROOT = Path(__file__).resolve().parents[2]
SMALL = (
    "model.d_model=512", "model.n_blocks=2", "model.n_heads=4", "model.vocabulary_size=32000",
    "data.sequence_length=1024", "train.batch_sequences=64", "train.microbatches=2",
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Case:
    name: str
    what: str
    config_file: str
    overrides: tuple[str, ...]
    topology: aot.Topology
    mesh: MeshConfig

    @property
    def config(self) -> Config:
        return configfile.load(
            [f"--config={ROOT / self.config_file}", *(f"--config.{o}" for o in self.overrides)]
        ).config

    @property
    def vocabulary_size(self) -> int:
        return self.config.model.vocabulary_size or 50_257  # GPT-2's


CASES = {
    case.name: case
    for case in (
        Case(
            "3m", "krajewski2024 64×3M, G = 16", "configs/krajewski2024.py:table3", ("moe.granularity=16",),
            aot.Topology("v5e:4x4"), MeshConfig(1, 1, 16),
        ),
        Case(
            "85m", "krajewski2024 64×85M, G = 4", "configs/krajewski2024.py:table3",
            ("model.d_model=768", "model.n_blocks=12", "model.n_heads=12", "moe.granularity=4"),
            aot.Topology("v5e:4x4"), MeshConfig(1, 1, 16),
        ),
        Case(
            "56b", "krajewski2025 56B, G = 8", "configs/krajewski2025.py:56b", ("train.microbatches=32",),
            aot.Topology("v5p:2x4x4"), MeshConfig(1, 4, 8),
        ),
        Case(
            "fsdp", "token choice, experts and FSDP", "configs/krajewski2025.py:11b", (*SMALL, "model.remat=none"),
            aot.Topology("v4:2x2x2"), MeshConfig(1, 2, 4),
        ),
        Case(
            "slices", "the same, 2 slices, block recomputed", "configs/krajewski2025.py:11b",
            (*SMALL, "model.remat=block"), aot.Topology("v6e:2x2", 2), MeshConfig(2, 2, 2),
        ),
        Case(
            "dropless", "abnar2025, 8 of 64, d_expert 64", "configs/abnar2025.py",
            (*SMALL, "model.remat=none", "moe.n_experts=64", "moe.top_k=8", "moe.granularity=32"),
            aot.Topology("tpu7x:2x2x1"), MeshConfig(1, 8, 1),
        ),
    )
}  # fmt: skip


def least_expert_flops(case: Case) -> float:
    """What one device's experts have to do in a step by counts.py: rows for the top_k of its tokens, times the capacity
    factor where slots are filled up."""
    c = case.config
    parameters = counts.count_parameters(c, case.vocabulary_size)
    active = parameters.n_active_nonemb - 4 * c.model.d_model**2 * c.model.n_blocks
    return 6 * active * c.batch_tokens / case.topology.n_devices * _filling(c)


def least_exchange(case: Case) -> float:
    """Bytes that one device has to send in all_to_alls a step: its tokens to their experts and back, forward and
    backward; and with expert choice once more each way, where groups are larger than what a device holds."""
    c, n = case.config, case.mesh.expert
    if c.moe.dispatch != "slots" or n == 1:
        return 0
    tokens = c.batch_tokens / case.topology.n_devices
    held = c.train.batch_sequences / c.train.microbatches / case.topology.n_devices
    exchanged = c.moe.router == "expert_choice" and held % c.moe.group_sequences != 0
    rows = c.moe.top_k * _filling(c) + exchanged
    item = 2 if c.model.compute_dtype == "bfloat16" else 4
    return 4 * c.model.n_blocks * rows * tokens * c.model.d_model * item * (n - 1) / n


def _filling(c: Config) -> float:
    return c.moe.capacity_factor if c.moe.router == "token_choice" and c.moe.dispatch == "slots" else 1


def compile_case(case: Case) -> aot.Compiled:
    """In a child process, in the environment for it; its log goes to stderr."""
    command = [sys.executable, __file__, f"--child={case.name}"]
    done = subprocess.run(command, cwd=ROOT, env=aot.environment(), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{case.name}: the compile ended with {done.returncode}")
    return aot.Compiled.from_dict(json.loads(done.stdout.splitlines()[-1]))


def child(case: Case) -> None:
    compiled = aot.compile_step(case.config, case.vocabulary_size, case.topology, case.mesh)
    print(json.dumps(compiled.to_dict()))


def row(case: Case, compiled: aot.Compiled) -> tuple[str, ...]:
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
    parser.add_argument("--cases", default=",".join(CASES), help=f"of {', '.join(CASES)}")
    parser.add_argument("--out", type=Path, default=Path("tpu_compiles.json"), help="kept results, case by case")
    parser.add_argument("--child", choices=CASES, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return child(CASES[args.child])
    table = Table(
        "step of", "slice", "replica×data×expert", "GiB a device", "fits", "expert FLOPs ÷ least", "recomputed ÷ least",
        "all_to_all ÷ least", "other collectives, MiB", "s",
    )  # fmt: skip
    kept = json.loads(args.out.read_text()) if args.out.exists() else {}
    for name in args.cases.split(","):
        if name not in CASES:
            parser.error(f"--cases: {name!r} is none of {', '.join(CASES)}")
        if name not in kept:
            kept[name] = compile_case(CASES[name]).to_dict()
            args.out.write_text(json.dumps(kept, indent=1))
        cells = row(CASES[name], aot.Compiled.from_dict(kept[name]))
        Console(stderr=True).print(*cells)  # the table comes at the end
        table.add_row(*cells)
    Console(width=None if sys.stdout.isatty() else 200).print(table)


if __name__ == "__main__":
    main()
