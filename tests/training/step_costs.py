"""What XLA says of compiled train steps: `python -m tests.training.step_costs` prints it as JSON.

FLOPs and bytes are XLA's own counts, with the body of a loop counted once: they mean nothing alone, but move where the
program does. Run it with eight virtual devices and XLA's normal optimisation (tests/training/test_step_costs.py does).
"""

import json
import re
import sys

import jax
import numpy as np

from moe_jax.config import config_file
from moe_jax.config.schema import MeshConfig
from moe_jax.model.sharding import Layout, make_mesh
from moe_jax.training import optimizer
from moe_jax.training.step import Trainer

V = 512
COMMON = (
    "model.d_model=128", "model.n_heads=4", "model.activation=swiglu", "model.positions=rope", "model.qk_norm=head",
    "model.norm=rmsnorm", "moe.granularity=4", "data.sequence_length=256", "train.batch_sequences=16",
    "model.logits_positions=64",
)  # fmt: skip
STEPS = {
    "one device, slots": (MeshConfig(1, 1, 1), ()),
    "2 × 4 devices, slots": (MeshConfig(1, 2, 4), ()),
    "2 × 4 devices, dropless": (MeshConfig(1, 2, 4), ("moe.dispatch=dropless",)),
}
COLLECTIVES = ("all-gather", "all-reduce", "all-to-all", "collective-permute", "reduce-scatter")


def cost(mesh: MeshConfig, overrides: tuple[str, ...]) -> dict[str, float]:
    """FLOPs, bytes and the number of collectives of the compiled step."""
    flags = [f"--config.{o}" for o in (*COMMON, *overrides)]
    config = config_file.load(["--config=configs/common.py", *flags]).config
    layout = Layout(make_mesh(mesh, jax.devices()[: mesh.replica * mesh.data * mesh.expert]))
    trainer = Trainer(config, V, layout)
    windows = jax.ShapeDtypeStruct((1, config.train.batch_sequences, config.data.sequence_length + 1), np.int32)
    compiled = trainer.step.lower(trainer.abstract_state, windows, optimizer.schedule_of(config)).compile()
    counted, text = compiled.cost_analysis(), compiled.as_text()
    collectives = {name: len(re.findall(rf" {name}(?:-start)?\(", text)) for name in COLLECTIVES}
    return {"flops": counted["flops"], "bytes": counted["bytes accessed"]} | collectives


if __name__ == "__main__":
    json.dump({name: cost(*step) for name, step in STEPS.items()}, sys.stdout, indent=1)
    print()
