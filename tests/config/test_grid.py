"""Grids are values: cells combine without losing a field; names tell runs apart and outlive an extension."""

import json

import numpy as np
import pytest

from moe_jax.config import config_file, counts, grid
from moe_jax.config.cell import Cell
from moe_jax.errors import UserError

BASE = config_file.load(["--config=configs/common.py"]).base.to_dict()


def expand(*cells):
    return grid.expand(BASE, list(cells))


def test_product_zip_and_chain():
    a, b = grid.axis("seed", [0, 1]), grid.axis("model.d_model", [16, 32])
    assert grid.product(a, b) == [
        Cell({"seed": 0, "model.d_model": 16}),
        Cell({"seed": 0, "model.d_model": 32}),
        Cell({"seed": 1, "model.d_model": 16}),
        Cell({"seed": 1, "model.d_model": 32}),
    ]
    assert grid.zipped(a, b) == [Cell({"seed": 0, "model.d_model": 16}), Cell({"seed": 1, "model.d_model": 32})]
    assert grid.chain(a, b) == a + b
    assert grid.product([{"seed": 0}], b) == grid.product(a[:1], b)  # a plain dict is a cell of overrides
    with pytest.raises(ValueError, match="shorter"):
        grid.zipped(a, b[:1])
    with pytest.raises(UserError, match="seed twice"):
        grid.product(a, a)


def test_two_cells_are_merged_with_all_that_they_say():
    first, second = Cell({"seed": 1}, refused="too long", derived=("seed",)), Cell({"moe": None}, name="a")
    merged = Cell({"seed": 1, "moe": None}, name="a", refused="too long", derived=("seed",))
    assert first | second == merged
    assert (second | first).refused == "too long" and second | {"seed": 1} == Cell({"moe": None, "seed": 1}, name="a")
    assert Cell({}, refused="first") | Cell({}, refused="second") == Cell({}, refused="first")
    with pytest.raises(UserError, match="the grid sets the name twice in one cell, to 'a' and 'b'"):
        second | Cell({}, name="b")
    with pytest.raises(UserError, match="the grid sets seed twice in one cell, to 1 and 2"):
        first | {"seed": 2}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (lambda: Cell(3), "must be a dict of overrides, not 3"),
        (lambda: Cell({1: 2}), "fields must be texts"),
        (lambda: Cell({"refused": "x"}), r"'refused' is no field of a config: write grid\.Cell\({…}, refused=…\)"),
        (lambda: Cell({}, refused=["x"]), "'refused' must be the reason"),
        (lambda: Cell({}, derived=3), "'derived' must list fields"),
    ],
)
def test_a_cell_that_is_none_is_refused(given, words):
    with pytest.raises(UserError, match=words):
        given()


def test_the_smoke_grid_has_every_axis_in_its_names():
    file = config_file.load(["--config=configs/smoke.py"])
    runs = grid.expand(file.base.to_dict(), file.cells)
    assert len(runs) == len({run.name for run in runs}) == 27
    assert runs[0].name == "n6p1k-d96k-g1-s0"
    assert len({run.config.model.d_model for run in runs}) == len({run.config.train.tokens for run in runs}) == 3


def test_names_are_those_of_the_run_alone():
    cell = {"model.d_model": 32, "optim.learning_rate": 0.0025}
    (alone,) = expand(cell)
    extended = expand({"model.d_model": 16}, cell, {"moe": None}, {"seed": 7, "train.batch_sequences": 64})
    assert [run.name for run in extended] == [
        "n6p1k-d384k-g1-s0",
        "n25k-d384k-g1-lr2p5e3-s0",
        "n98k-d384k-dense-s0",
        "n98k-d384k-g1-b64-s7",
    ]
    assert alone == extended[1]


@pytest.mark.parametrize(
    ("router", "part"),
    [
        ("expert_choice", "lb0-ec"),
        ("token_choice", "tc"),
        ("mine.routers:HashRouter_2", "hashrouter2"),
        ("m:_", "router"),
    ],
)
def test_a_router_that_a_cell_sets_is_in_the_name(router, part):
    cell = {"moe.router": router, "moe.group_sequences": 8}
    if router == "expert_choice":
        cell |= {"moe.softmax": "over_experts", "moe.load_balance_loss_weight": 0}
    assert [run.name for run in expand(cell)] == [f"n98k-d384k-g1-{part}-s0"]


def test_an_optimizer_that_a_cell_sets_is_in_the_name():
    cells = [{"optim.name": "muon", "optim.momentum": 0.95}, {"optim.name": "lion", "optim.eps": None}]
    assert [run.name for run in expand(*cells)] == ["n98k-d384k-g1-mu-s0", "n98k-d384k-g1-li-s0"]


def test_equal_names_and_bad_names_are_refused():
    with pytest.raises(UserError, match=r"n98k-d384k-g1-s0 is taken by .*; name one of them"):
        expand({"optim.eps": 1e-8}, {"optim.eps": 1e-6})
    assert [r.name for r in expand(Cell({"optim.eps": 1e-8}, "a"), Cell({"optim.eps": 1e-6}, "b"))] == ["a", "b"]
    assert [r.name for r in expand(Cell({}, name="a-r"), Cell({"seed": 1}, name="a-r1b"))] == ["a-r", "a-r1b"]
    for name in ["", "A", "-a", "a-", "a b", "a/../b", "1a", "x" * 29, "a;rm", "a\n", 3, "a-r1"]:
        with pytest.raises(UserError, match="run name"):
            expand(Cell({}, name=name))


def test_a_cell_is_refused_with_its_place():
    with pytest.raises(UserError, match=r"cell 2 of the grid, .*config.moe.granularity = 3: must divide"):
        expand({}, {"moe.granularity": 3})
    with pytest.raises(UserError, match=r"did you mean config.model.d_model"):
        expand({"model.dmodel": 3})
    with pytest.raises(UserError, match="is None"):
        grid.expand(BASE | {"moe": None}, [{"moe.granularity": 2}])
    for cell in ({"moe": None, "moe.granularity": 2}, {"moe.granularity": 2, "moe": None}):
        with pytest.raises(UserError, match=r"config.moe.granularity: config.moe is None"):
            expand(cell)


def test_an_axis_may_be_of_numpy():
    runs = expand(
        *grid.product(grid.axis("seed", np.arange(2)), grid.axis("optim.learning_rate", np.logspace(-3, -2, 2)))
    )
    plain = expand(*grid.product(grid.axis("seed", [0, 1]), grid.axis("optim.learning_rate", [1e-3, 1e-2])))
    assert runs == plain
    json.dumps([run.overrides for run in runs])


def test_expanding_leaves_the_base_alone():
    before = str(BASE)
    expand({"model.d_model": 16}, {"moe": None})
    assert str(BASE) == before


def test_a_prefix_names_the_group():
    cell = Cell({"d_model": 32}, name="a", derived=("d_model",))
    assert grid.prefix("model", [cell]) == [Cell({"model.d_model": 32}, name="a", derived=("model.d_model",))]


def test_refused_cells_stay_with_their_reason_and_are_not_run():
    widths = grid.axis("model.d_model", [16, 32, 64])
    cells = grid.keep_only(widths, lambda overrides: overrides["model.d_model"] < 64, "too wide")
    cells = grid.product(cells, grid.axis("moe.granularity", [1, 3]))
    cells = grid.possible(BASE, cells)
    assert [run.name for run in expand(*cells)] == ["n6p1k-d384k-g1-s0", "n25k-d384k-g1-s0"]
    third, other, wide = grid.refusals(cells)
    assert wide == "left out of the grid: 2 cells, model.d_model=64 moe.granularity=1, …: too wide"
    assert "model.d_model=16 moe.granularity=3: config.moe.granularity = 3: must divide model.d_ff = 64" in third
    assert "model.d_ff = 128" in other
    with pytest.raises(UserError, match=r"no cell that is to be run.*: too wide"):
        expand(*grid.keep_only([{"model.d_model": 64}], lambda overrides: False, "too wide"))


def test_rules_follow_from_the_cell_and_are_not_in_its_name():
    """Of N, of D, of E; a later rule sees what an earlier one has set."""
    cells = grid.product(grid.axis("model.d_model", [16, 64]), grid.axis("train.tokens", [96_000, 384_000]))
    cells = grid.rule(BASE, cells, "train.batch_sequences", lambda c, n: 8 if c.train.tokens < 1e5 else 32)
    cells = grid.rule(
        BASE, cells, "optim.learning_rate",
        lambda c, n: c.train.batch_sequences / n.n_active_nonemb / c.moe.expansion_rate,
    )  # fmt: skip
    runs = expand(*cells)
    assert [run.name for run in runs] == [
        "n6p1k-d96k-g1-s0",
        "n6p1k-d384k-g1-s0",
        "n98k-d96k-g1-s0",
        "n98k-d384k-g1-s0",
    ]
    assert [run.config.train.batch_sequences for run in runs] == [8, 32, 8, 32]
    assert [run.config.optim.learning_rate * 8 for run in runs] == pytest.approx(
        [8 / 6144, 32 / 6144, 8 / 98304, 32 / 98304]
    )
    assert all("optim.learning_rate" in run.overrides for run in runs)
    with pytest.raises(UserError, match=r"sets train.tokens twice"):
        grid.rule(BASE, cells, "train.tokens", lambda c, n: 7)


@pytest.mark.parametrize("flops", ["flops_krajewski2024", "flops_abnar2025", "flops_6nd", "train_flops"])
def test_iso_flop_spends_each_budget_on_every_shape(flops):
    shapes = grid.product(grid.axis("model.d_model", [16, 32]), [{"moe.granularity": 2}, {"moe": None}])
    budgets = [1e11, 3e11]
    cells = grid.iso_flop(BASE, shapes, budgets, flops, 259)
    runs = expand(*cells)
    assert len(runs) == 8
    for run, budget in zip(runs, [budgets[0]] * 4 + [budgets[1]] * 4, strict=True):
        assert run.config.train.tokens == run.config.steps * run.config.batch_tokens
        a_step = getattr(counts.count_flops(run.config, 259), flops) / run.config.steps
        assert abs(run.config.steps * a_step - budget) <= a_step / 2
    assert expand(*grid.iso_flop(BASE, shapes[:1], [1.0], flops, 259))[0].config.steps == 1
