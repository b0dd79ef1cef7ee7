"""Counts are those of the built model, and those the papers print."""

import jax
import pytest
from flax import nnx

from moe_jax.config import config_file, counts, grid
from moe_jax.config.schema import MeshConfig
from moe_jax.model import dispatch
from moe_jax.model.sharding import Layout, make_mesh
from moe_jax.model.transformer import Transformer
from moe_jax.training.step import Trainer

# krajewski2024 Table 3: (d, blocks, N total, [(tokens, runs)]); the fourth column is derived in the paper's own way.
TABLE_3 = [
    (256, 4, 135_266_304, {16: 5, 33: 5, 66: 5}),
    (384, 4, 304_349_184, {16: 5, 33: 5, 66: 5}),
    (512, 4, 541_065_216, {16: 5, 33: 5, 66: 5, 130: 3}),
    (512, 8, 1_082_130_432, {16: 5, 33: 5, 66: 4}),
    (640, 10, 2_113_536_000, {16: 5, 33: 5, 66: 3}),
    (768, 12, 3_652_190_208, {33: 3}),
]
STEPS = {16: 31_250, 33: 62_500, 66: 125_000, 130: 250_000}  # of 524,288 tokens
GRANULARITIES = (1, 2, 4, 8, 16)


def config(*overrides):
    return config_file.load(["--config=configs/common.py", *(f"--config.{o}" for o in overrides)]).config


@pytest.mark.parametrize(
    "overrides",
    [
        (),
        ("moe=None",),
        (
            "moe.granularity=4",
            "moe.active_rate=2",
            "model.activation=swiglu",
            "model.norm=rmsnorm",
            "model.positions=rope",
        ),
        ("moe.output_norm=True", "model.final_norm=False", "model.qk_norm=head", "model.n_layers=3"),
        ("moe=None", "model.activation=swiglu"),
        ("moe=None", "model.ff_bias=True"),
        ("model.ff_bias=True",),
        ("moe.shared_experts=2", "moe.granularity=4", "model.ff_bias=True"),
        ("model.n_heads=4", "model.n_kv_heads=2", "model.head_dim=24"),
        ("model.n_heads=4", "model.n_kv_heads=2", "model.qk_norm=full", "model.tied_embeddings=True"),
        ("model.tied_embeddings=True", "model.positions=rope", "model.qk_norm=full", "moe=None"),
        ("moe.shared_experts=2", "moe.shared_gate=True", "moe.score=sigmoid", "moe.expert_groups=2"),
    ],
)
def test_counts_are_the_built_models(overrides):
    check_counts(config(*overrides), 259)


TABLES = ["table3", "table4", "table7"]


def of_table(name):
    """One run of every shape (d, blocks, G) of a table of krajewski2024."""
    loaded = config_file.load([f"--config=configs/krajewski2024.py:{name}"])
    runs = grid.expand(loaded.base.to_dict(), loaded.cells)
    return {
        (r.config.model.d_model, r.config.model.n_layers, r.config.moe and r.config.moe.granularity): r for r in runs
    }


@pytest.mark.parametrize("table", TABLES)
def test_counts_are_the_built_models_over_the_papers_grid(table):
    runs = list(of_table(table).values())
    for run in runs[::5]:
        check_counts(run.config, 50_257)


@pytest.mark.slow
@pytest.mark.parametrize("table", TABLES)
def test_counts_are_the_built_models_over_the_papers_whole_grid(table):
    for run in of_table(table).values():
        check_counts(run.config, 50_257)


def check_counts(c, vocab_size):
    """Nothing is allocated."""
    counted = counts.count_parameters(c, vocab_size)
    layout = Layout(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))
    model = nnx.eval_shape(lambda: Transformer(c, vocab_size, layout, jax.random.key(0)))
    sizes = {".".join(map(str, path)): leaf.size for path, leaf in nnx.to_flat_state(nnx.state(model))}
    assert counted.n_total == sum(sizes.values())
    assert counted.n_router == sum(n for name, n in sizes.items() if "router" in name)
    assert counted.n_embedding == sum(
        n for name, n in sizes.items() if name.startswith(("tokens", "positions", "head"))
    )
    assert counted.n_norm == sum(n for name, n in sizes.items() if "norm" in name)
    assert counted.n_bias == sum(n for name, n in sizes.items() if ".b_" in name)


def paper(d, blocks, granularity):
    return config(
        f"model.d_model={d}", f"model.n_layers={blocks}", f"model.n_heads={d // 64}", f"moe.granularity={granularity}",
        "moe.expansion_rate=64", "data.sequence_length=256", "train.batch_sequences=2048", "moe.capacity_factor=4",
    )  # fmt: skip


def test_table_3_of_krajewski2024():
    runs, tokens, flops = 0, 0, 0.0
    for d, blocks, n_total, cells in TABLE_3:
        for billions, number in cells.items():
            for granularity in GRANULARITIES[:number]:
                c = paper(d, blocks, granularity)
                counted = counts.count_parameters(c, 50_257)
                assert counted.n_total_nonemb == n_total == d * d * (8 * 64 + 4) * blocks
                assert counted.n_active_nonemb == 12 * d * d * blocks
                D = STEPS[billions] * 524_288
                runs, tokens = runs + 1, tokens + D
                flops += counts.count_flops(c, 50_257, D).flops_krajewski2024
    assert runs == 78
    assert tokens == pytest.approx(3.16e12, rel=2e-3)
    assert flops == pytest.approx(4.04e20, rel=2e-3)


def test_flops_of_krajewski2024_table_2():
    """64×100M at 4.37B tokens, G = 8: 2.95e18 (appendix E's formula, d = 64 blocks)."""
    blocks = round((100e6 / 12 / 64**2) ** (1 / 3))
    c = paper(64 * blocks, blocks, 8)
    per_token = counts.count_flops(c, 50_257, 1).flops_krajewski2024
    scale = (
        100e6 / counts.count_parameters(c, 50_257).n_active_nonemb
    )  # the paper's size need not be a whole number of blocks
    assert per_token * scale * 4.37e9 == pytest.approx(2.95e18, rel=0.03)


def test_flops_say_what_they_leave_out():
    c = config("moe.granularity=4")
    f, n = counts.count_flops(c, 259), counts.count_parameters(c, 259)
    D, d, L, S = f.tokens, 64, 2, 64
    assert f.flops_krajewski2024 == (6 * n.n_active_nonemb + 14 * d * 32 * L) * D
    assert f.flops_6nd == 6 * n.n_active * D
    assert f.flops_abnar2025 - f.flops_krajewski2024 == (6 * 2 * d * S * L + 6 * 259 * d) * D
    assert f.flops_abnar2025 - f.train_flops == 8 * d * 32 * L * D  # one-hot dispatch and combine, which are not done


def test_capacity():
    assert counts.capacity(config()) == 10  # ceil(1.25 · 64 · 1 / 8)
    assert counts.capacity(config("moe.granularity=4", "moe.capacity_factor=1")) == 8
    assert counts.capacity(config("moe.capacity_factor=1000")) == 64  # never more than the group's tokens
    choice = ("moe.router=expert_choice", "moe.softmax=over_experts", "moe.load_balance_loss_weight=0")
    assert counts.capacity(config(*choice, "moe.group_sequences=16")) == 2


EXPERT_CHOICE = ("moe.router=expert_choice", "moe.softmax=over_experts", "moe.load_balance_loss_weight=0")


@pytest.mark.parametrize(
    "overrides",
    [
        ("moe.granularity=4",),
        ("moe.granularity=2", "model.activation=swiglu", "moe.capacity_factor=2"),
        (*EXPERT_CHOICE, "moe.granularity=4", "moe.group_sequences=16"),
        ("moe=None",),
    ],
    ids=["token choice", "gated, capacity 2", "expert choice", "dense"],
)
def test_flops_are_the_compiled_models(overrides, monkeypatch):
    """Of one block, since XLA counts a scan's body once, and where rows are not streamed, for the same reason. What
    train_flops leaves out is less than 3 %: everything but matrix products."""
    slots = dispatch.slots
    monkeypatch.setattr(dispatch, "slots", lambda *a, stream: slots(*a, stream=False))
    c = config("model.d_model=256", "model.n_heads=4", "model.n_layers=1", *overrides)
    V, d, D, moe = 512, c.model.d_model, c.batch_tokens, c.moe
    t = Trainer(c, V, Layout(make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])))
    windows = jax.ShapeDtypeStruct((1, c.train.batch_sequences, c.data.sequence_length + 1), "int32")
    found = jax.jit(t.gradients).lower(t.abstract_state.params, windows).cost_analysis()["flops"]
    S = c.data.sequence_length
    wanted = counts.count_flops(c, V, D).train_flops + 2 * d * S * D  # scores are computed again, never held
    if moe is not None:  # slots that stay empty are multiplied too
        groups = D // moe.group_sequences
        groups //= 1 if moe.router == "expert_choice" else S
        rows = groups * moe.n_experts * counts.capacity(c)
        wanted += 6 * c.model.ff_matrices * d * moe.d_expert * (rows - D * moe.top_k)
    assert found == pytest.approx(wanted, rel=0.03) and found > wanted
