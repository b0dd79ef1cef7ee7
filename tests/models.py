"""Small models for the tests, on any of the eight virtual devices."""

import jax
import numpy as np

from moe_jax.config import config_file, schema
from moe_jax.config.schema import Config
from moe_jax.model import sharding
from moe_jax.training.step import Trainer

VOCABULARY = 37
END_OF_DOCUMENT = 0
SMALL = (
    "model.d_model=16", "model.n_heads=2", "data.sequence_length=16", "train.batch_sequences=16", "eval.sequences=16",
    "train.loss_average_steps=4", "moe.granularity=2",
)  # fmt: skip
EXPERT_CHOICE = (
    "moe.router=expert_choice", "moe.softmax=over_experts", "moe.load_balance_loss_weight=0", "moe.group_sequences=8",
    "moe.output_norm=True",
)  # fmt: skip
OPTIMIZERS = {
    "adamw": (),
    "muon": ("optim.name=muon", "optim.momentum=0.95"),
    "lion": ("optim.name=lion", "optim.eps=None"),
    "adafactor": ("optim.name=adafactor", "optim.betas=None", "optim.eps=None"),
}


def config(*overrides: str) -> Config:
    return config_file.load(["--config=configs/common.py", *(f"--config.{o}" for o in SMALL + overrides)]).config


def trainer(c: Config, data: int = 1, expert: int = 1, replica: int = 1, vocab_size: int = VOCABULARY) -> Trainer:
    mesh_config = schema.MeshConfig(replica=replica, data=data, expert=expert)
    mesh = sharding.make_mesh(mesh_config, jax.devices()[: data * expert * replica])
    sharding.check_fit(c, mesh)
    return Trainer(c, vocab_size, sharding.Layout(mesh), END_OF_DOCUMENT)


def windows(c: Config, seed: int = 0) -> np.ndarray:
    shape = (c.train.batch_sequences, c.data.sequence_length + 1)
    return np.random.default_rng(seed).integers(0, VOCABULARY, shape, np.int32)


def put(t: Trainer, windows_BxS1: np.ndarray) -> jax.Array:
    """An array of windows on the devices, as Trainer.put places a batch."""
    parts = windows_BxS1.reshape(t.config.train.microbatches, -1, windows_BxS1.shape[-1])
    return jax.device_put(parts, t.batch_sharding)


def loss_and_gradients(t: Trainer, windows_BxS1: np.ndarray, seed: int = 0):
    """(loss, {parameter: gradient}) on the host."""
    state = t.init(seed)
    gradients, statistics = jax.jit(t.gradients)(state.params, put(t, windows_BxS1), state.router)
    flat, _ = jax.tree_util.tree_flatten_with_path(gradients)
    return float(statistics["loss"]), {jax.tree_util.keystr(path): np.asarray(g) for path, g in flat}


def check_causality(t: Trainer) -> None:
    """Other tokens after a position, in every sequence, change no hidden state up to it, to the bit. (Dropping is
    discrete and has no gradient, so a gradient alone would not show a leak through it.)"""
    c, params = t.config, t.init(0).params
    hidden = jax.jit(lambda p, w: t.model(p)(w)[0])
    given = windows(c)[:, :-1]
    before = np.asarray(hidden(params, given))
    for position in (0, 7, 14):
        changed, later = given.copy(), np.s_[:, position + 1 :]
        changed[later] = (given[later] + 1 + windows(c, 9)[:, position + 1 : -1] % (VOCABULARY - 1)) % VOCABULARY
        after = np.asarray(hidden(params, changed))
        assert np.array_equal(before[:, : position + 1], after[:, : position + 1])
        assert not np.array_equal(before[later], after[later])


def distance(a: np.ndarray, b: np.ndarray) -> float:
    """‖a − b‖ / ‖b‖."""
    a, b = a.astype(np.float64), b.astype(np.float64)
    norm = np.linalg.norm(b)
    return float(np.linalg.norm(a - b) / norm) if norm else float(np.linalg.norm(a))
