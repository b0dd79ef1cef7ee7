"""What a learning rate does to a wide model is what it does to a narrow one, by grid.width_transfer."""

import jax
import numpy as np
import pytest

from moe_jax.config import config_file, grid
from moe_jax.errors import UserError
from moe_jax.model.matrices import Role, matrices_of
from moe_jax.training import optimizer
from tests.models import SMALL, config, put, trainer, windows

RATE = 0.01
BASE = (
    "model.n_heads=1", "moe.granularity=1", "moe.expansion_rate=4", "moe.dispatch=dense", "optim.weight_decay=0",
    "optim.warmup_fraction=0", f"optim.learning_rate={RATE}", "model.final_norm=False", "model.d_model=16",
)  # fmt: skip
WIDTHS = (32, 128, 256)


def base_of(*overrides):
    """The config of width 16, whose rate is to be transferred, with what follows from its width left None."""
    flags = (*SMALL, *BASE, *overrides)
    return config_file.load(["--config=configs/common.py", *(f"--config.{flag}" for flag in flags)]).base.to_dict()


def at_widths(*overrides, transfer=True, widths=WIDTHS):
    """The configs of several widths, heads as wide as the base's."""
    base = base_of(*overrides)
    cells = grid.zipped(grid.axis("model.d_model", widths), grid.axis("model.n_heads", [d // 16 for d in widths]))
    return [grid.config_of(base, cell) for cell in (grid.width_transfer(base, cells) if transfer else cells)]


def moves(c, steps=4):
    """(mean change of hidden states, mean change of logits) of one batch after a few steps."""
    t, given = trainer(c), windows(c)

    @jax.jit
    def seen(weights):
        model = t.model(weights)
        hidden = model(given[:, :-1])[0]
        return hidden, model.logits(hidden)

    state = t.init(0)
    before = jax.device_get(seen(state.weights))
    for _ in range(steps):
        state, _ = t.step(state, put(t, given), optimizer.schedule_of(c))
    after = jax.device_get(seen(state.weights))
    return [float(np.abs(x - y).mean()) for x, y in zip(after, before, strict=True)]


@pytest.mark.slow
@pytest.mark.parametrize("overrides", [(), ("optim.name=lion", "optim.eps=None", "optim.learning_rate=0.003")], ids=str)
def test_hidden_states_move_alike_at_every_width(overrides):
    """The coordinate check of Yang et al. 2022: with the rule the change is about constant from width 32 to 256,
    without it grows."""
    with_rule, without = (
        np.array([moves(c) for c in at_widths(*overrides, transfer=transfer)]) for transfer in (True, False)
    )

    def slopes(moved):
        return np.polyfit(np.log(WIDTHS), np.log(moved), 1)[0]

    assert np.all(np.abs(slopes(with_rule)) < 0.4)
    assert np.all(slopes(without) > 0.5)


def test_the_rule_sets_rates_and_inits_by_role():
    narrow, *_, wide = at_widths(widths=(16, 32, 64))
    assert (narrow.optim.matrix_rate, narrow.model.readout_init_scale) == (1, 0.1)
    assert wide.optim.matrix_rate == 1 / 4 and wide.model.readout_init_scale == pytest.approx(0.1 / 4)
    assert wide.optim.learning_rate == narrow.optim.learning_rate == RATE
    params = trainer(wide).init(0).params
    # A std of sqrt(scale / fan_in), less what the cut takes.
    assert np.std(params["head_dxV"]) == pytest.approx((0.1 / 4 / 64) ** 0.5, rel=0.1)
    assert np.std(params["blocks"]["moe"]["router_dxE"]) == pytest.approx((0.1 / 4 / 64) ** 0.5, rel=0.15)
    assert np.std(params["blocks"]["moe"]["w_in_ExdxF"]) == pytest.approx((0.1 / 64) ** 0.5, rel=0.05)


@pytest.mark.parametrize("overrides", [(), ("optim.name=lion", "optim.eps=None")], ids=str)
def test_matrices_that_take_the_width_have_their_own_rate(overrides):
    """A first step of Adam and of Lion moves every number by the rate, or not at all."""
    c = config(*BASE, *overrides, "optim.matrix_rate=0.25", "optim.clip_norm=None")
    t = trainer(c)
    state = t.init(0)
    before = jax.device_get(state.params)
    after = jax.device_get(t.step(state, put(t, windows(c)), optimizer.schedule_of(c))[0].params)
    roles = set()
    for (keys, x), y in zip(jax.tree_util.tree_leaves_with_path(before), jax.tree.leaves(after), strict=True):
        path = tuple(key.key for key in keys)
        role = matrices_of(path, x.shape, gated=False).role
        factor = 0.25 if role in (Role.LINEAR, Role.READOUT) else 1
        roles.add(role)
        assert np.max(np.abs(x - y)) == pytest.approx(RATE * factor, rel=0.05), path
    assert roles == set(Role)


def test_what_does_not_transfer_is_refused():
    base = base_of()
    for cell, words in [
        ({"model.d_model": 32}, "config.model.head_dim = .*the width of a head stays the base's"),
        ({"model.d_model": 32, "model.n_heads": 2, "model.d_ff": 64}, "config.model.d_ff = 64.*d_ff / d_model stays"),
    ]:
        with pytest.raises(UserError, match=words):
            grid.width_transfer(base, [cell])
    with pytest.raises(UserError, match=r"config.optim.matrix_rate = 0.5: muon scales by the matrix as it is; set 1"):
        config("optim.name=muon", "optim.momentum=0.95", "optim.matrix_rate=0.5")
