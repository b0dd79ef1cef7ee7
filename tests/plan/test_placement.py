"""Placements: meshes and microbatches that can train a config, without changing its batch."""

import dataclasses

import pytest

from moe_jax import errors
from moe_jax.config.schema import MeshConfig
from moe_jax.plan import placement
from moe_jax.plan.placement import Placement
from tests import models


def test_the_configs_own_placement_is_what_train_makes_of_it():
    c = models.config("train.batch_sequences=32", "moe.n_experts=16", "moe.expansion_rate=None")
    assert placement.configured(c, 8) == Placement(MeshConfig(1, 1, 8), 1)
    with pytest.raises(errors.UserError, match="cannot be cut over 64 devices"):
        placement.configured(dataclasses.replace(c, mesh=MeshConfig(1, -1, 1)), 64)
    with pytest.raises(errors.UserError, match="must divide the 16 experts"):
        placement.configured(c, 32)


def test_every_option_can_be_done_and_keeps_the_batch():
    c = models.config("train.batch_sequences=64", *models.EXPERT_CHOICE)
    options = [option for mesh in placement.meshes(c, 8, 2) for option in placement.options(c, mesh)]
    assert len({option.mesh for option in options}) > 1 and len({option.microbatches for option in options}) > 1
    for option in options:
        placed = option.applied(c)  # check_fit would refuse it here
        assert placed.train.batch_sequences == 64
        assert placed.mesh.replica * placed.mesh.data * placed.mesh.expert == 8


def test_several_slices_hold_copies_and_dense_runs_have_no_expert_axis():
    c = models.config("moe.n_experts=16", "moe.expansion_rate=None")
    assert [(m.replica, m.data, m.expert) for m in placement.meshes(c, 16, 2)] == [
        (2, 1, 8), (2, 2, 4), (2, 4, 2), (2, 8, 1), (1, 1, 16),
    ]  # fmt: skip
    dense = models.config("moe=None", "mesh.expert=1", "mesh.data=-1")
    assert [(m.replica, m.data, m.expert) for m in placement.meshes(dense, 16, 2)] == [(2, 8, 1), (1, 16, 1)]
