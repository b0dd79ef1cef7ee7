"""A program that a run takes over from another one of its shape gives the bits of its own."""

import jax
import pytest

from moe_jax.config import config_file
from moe_jax.config.schema import MeshConfig
from moe_jax.model import sharding
from moe_jax.sweep import from_config
from moe_jax.sweep.workdir import Workdir
from moe_jax.training import loop
from moe_jax.training.goal import run_goal
from moe_jax.training.options import Options
from moe_jax.training.program import Programs
from tests.faults import differences, outcome
from tests.models import VOCABULARY, config

FIRST = ["--config.train.tokens=2048"]
VALUES = [  # all that a run of the same shape may differ in
    "--config.train.tokens=4096", "--config.seed=3", "--config.optim.learning_rate=1e-3", "--config.eval.sequences=24",
    "--config.optim.warmup_fraction=0.3", "--config.train.log_every_steps=2", "--config.checkpoint.every_steps=5",
    "--config.eval.every_steps=8", "--config.eval.dispatch=slots",
]  # fmt: skip

OTHER_SHAPES = {"moe.granularity": 4, "train.microbatches": 2, "optim.weight_decay": 0.3, "model.remat": "block"}


@pytest.fixture
def train(byte_store, tmp_path):
    """train(name, flags, programs, devices=1) -> the run's folder."""

    def go(name, flags, programs, devices=1):
        file = config_file.load(["--config=configs/smoke.py:tiny", f"--config.data.store={byte_store}", *flags])
        workdir = Workdir(str(tmp_path / name))
        manifest, (run,), store = from_config.enter(file, workdir, whole_grid=False)
        goal = run_goal(run, workdir, manifest.store)
        options = Options(say=lambda sentence: None, devices=jax.devices()[:devices])
        loop.train([goal], store, manifest.store, options, programs)
        return goal.folder

    return go


def test_a_program_taken_over_gives_the_same_bits(train):
    shared = Programs()
    train("first", FIRST, shared)
    program = shared._program
    warm = train("warm", VALUES, shared)
    assert shared._program is program and program.trainer.step._cache_size() == 1
    assert differences(outcome(warm), outcome(train("fresh", VALUES, Programs()))) == []


def test_another_shape_or_mesh_has_its_own_program():
    first = config()
    one, two = (sharding.make_mesh(MeshConfig(1, 1, n), jax.devices()[:n]) for n in (1, 2))
    packed = sharding.make_packed_mesh(first, jax.devices()[:2], 2)
    others = [
        *((config(f"{field}={value}"), one, None, 1) for field, value in OTHER_SHAPES.items()),
        (first, two, None, 1), (first, one, 7, 1), (first, packed, None, 2),
    ]  # fmt: skip
    for c, mesh, end_of_document, n in others:
        programs = Programs()
        program = programs.program(first, VOCABULARY, one, None, 1)
        assert programs.program(config("seed=3"), VOCABULARY, one, None, 1) is program
        assert programs.program(c, VOCABULARY, mesh, end_of_document, n) is not program
