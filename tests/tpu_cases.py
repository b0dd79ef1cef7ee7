"""The train steps that are compiled for TPUs, and the least that each has to compute and to send.

Depth hardly matters to the time, since blocks are scanned; the papers' shapes have their real one because memory grows
with it, the others have few.

    python -m tests.tpu_cases CASE        compiles one, and prints it as JSON
"""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

from moe_jax.config import config_file as config_file_lib
from moe_jax.config import counts
from moe_jax.config.schema import Config, MeshConfig
from moe_jax.plan import aot

ROOT = Path(__file__).resolve().parents[1]
SMALL = (
    "model.d_model=512", "model.n_layers=2", "model.n_heads=4", "model.vocab_size=32000",
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
        return config_file_lib.load(
            [f"--config={ROOT / self.config_file}", *(f"--config.{o}" for o in self.overrides)]
        ).config

    @property
    def vocab_size(self) -> int:
        return self.config.model.vocab_size or 50_257  # GPT-2's


# The papers' shapes take minutes each, for a benchmark alone.
PAPER_CASES = {
    case.name: case
    for case in (
        Case(
            "85m", "krajewski2024 64×85M, G = 4", "configs/krajewski2024.py:table3",
            ("model.d_model=768", "model.n_layers=12", "model.n_heads=12", "moe.granularity=4"),
            aot.Topology("v5e:4x4"), MeshConfig(1, 1, 16),
        ),
        Case(
            "56b", "krajewski2025 56B, G = 8", "configs/krajewski2025.py:56b", ("train.microbatches=32",),
            aot.Topology("v5p:2x4x4"), MeshConfig(1, 4, 8),
        ),
    )
}  # fmt: skip
CASES = {
    case.name: case
    for case in (
        Case(
            "3m", "krajewski2024 64×3M, G = 16", "configs/krajewski2024.py:table3", ("moe.granularity=16",),
            aot.Topology("v5e:4x4"), MeshConfig(1, 1, 16),
        ),
        Case(
            "wide", "krajewski2025 56B, G = 8, made small", "configs/krajewski2025.py:56b", SMALL,
            aot.Topology("v5p:2x2x2"), MeshConfig(1, 1, 8),
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
    parameters = counts.count_parameters(c, case.vocab_size)
    active = parameters.n_active_nonemb - 4 * c.model.d_model**2 * c.model.n_layers
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
    return 4 * c.model.n_layers * rows * tokens * c.model.d_model * item * (n - 1) / n


def _filling(c: Config) -> float:
    return c.moe.capacity_factor if c.moe.router == "token_choice" and c.moe.dispatch == "slots" else 1


def compile_case(case: Case) -> aot.Compiled:
    """In a child process, in the environment for it; its log goes to stderr."""
    command = [sys.executable, "-m", "tests.tpu_cases", case.name]
    done = subprocess.run(command, cwd=ROOT, env=aot.environment(), stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(f"{case.name}: the compile ended with {done.returncode}")
    return aot.Compiled.from_dict(json.loads(done.stdout.splitlines()[-1]))


if __name__ == "__main__":
    case = (CASES | PAPER_CASES)[sys.argv[1]]
    print(json.dumps(aot.compile_step(case.config, case.vocab_size, case.topology, case.mesh).to_dict()))
