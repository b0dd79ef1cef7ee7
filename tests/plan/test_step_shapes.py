"""Step shapes: which config fields enter a compile, and which are values of the compiled step."""

from moe_jax.config import config_file
from moe_jax.config.identity import StepShape
from tests import models


def test_what_is_a_value_of_the_step_is_no_part_of_its_shape():
    base = StepShape(models.config(), 37)
    same = (
        "train.tokens=1000", "optim.learning_rate=0.1", "seed=5", "optim.warmup_fraction=0.5", "eval.sequences=32",
        "checkpoint.keep=7", "data.store=elsewhere", "tensorboard=True", "mesh.expert=2", "train.log_every_steps=9",
    )  # fmt: skip
    assert {StepShape(models.config(field), 37).key for field in same} == {base.key}
    other = (
        "model.n_layers=3", "moe.granularity=4", "train.microbatches=2", "train.batch_sequences=32", "optim.eps=1e-6",
        "data.sequence_length=32", "model.remat=block", "model.compute_dtype=bfloat16", "optim.clip_norm=None",
    )  # fmt: skip
    keys = {StepShape(models.config(field), 37).key for field in other}
    assert len(keys) == len(other) and base.key not in keys
    assert StepShape(base.config, 38).key != base.key


def test_table_3_has_28_shapes():
    file = config_file.load(["--config=configs/krajewski2024.py:table3"])
    assert len({StepShape(run.config, 50257).key for run in file.runs()}) == 28
