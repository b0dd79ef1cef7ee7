"""The presets are the papers' models: what their sheets state is what is built, initialised and counted."""

import jax
import numpy as np
import pytest
from flax import nnx

from moe_jax.config import config_file, counts, grid
from moe_jax.errors import UserError
from moe_jax.model.sharding import Layout, make_mesh
from moe_jax.model.transformer import Transformer
from moe_jax.training import optimizer
from tests.models import VOCABULARY, check_causality, trainer

NAMES = ("krajewski2024", "krajewski2025", "abnar2025")
TINY = (
    "model.d_model=16", "model.n_heads=2", "data.sequence_length=16", "train.batch_sequences=16", "eval.sequences=16",
    "mesh.data=1",
)  # fmt: skip
# Small groups of few experts, so that experts overflow and choose.
FEW = {
    "krajewski2024": ("moe.group_sequences=8", "moe.expansion_rate=8", "moe.granularity=2"),
    "krajewski2025": ("moe.expansion_rate=4", "moe.granularity=2", "moe.capacity_factor=0.5"),
    "abnar2025": (),
}


def preset(name, *overrides, file="configs/presets.py"):
    return config_file.load([f"--config={file}:{name}", *(f"--config.{o}" for o in overrides)]).config


@pytest.fixture(params=[(name, dense) for name in NAMES for dense in (False, True)], ids=str)
def tiny(request):
    """A preset or its dense twin, with small groups of few experts."""
    name, dense = request.param
    return preset(name, *TINY, *FEW[name], *(["moe=None"] if dense else []))


def test_counts_are_the_built_models(tiny):
    counted = counts.count_parameters(tiny, VOCABULARY)
    layout = Layout(make_mesh(tiny.mesh, jax.devices()[:1]))
    model = nnx.eval_shape(lambda: Transformer(tiny, VOCABULARY, layout, jax.random.key(0)))
    sizes = {".".join(map(str, path)): leaf.size for path, leaf in nnx.to_flat_state(nnx.state(model))}
    assert counted.n_total == sum(sizes.values())
    matrices = sum(n for name, n in sizes.items() if name.startswith("blocks") and ".w_" in name)
    assert counted.n_total_nonemb == matrices


def test_presets_are_causal(tiny):
    check_causality(trainer(tiny))


def by_name(params):
    """{dotted name: array}, those of all blocks stacked."""
    return {".".join(k.key for k in path): leaf for path, leaf in jax.tree_util.tree_leaves_with_path(params)}


def built(config):
    """{dotted name: initial value} on the host."""
    return {name: np.asarray(leaf) for name, leaf in by_name(trainer(config).init(0).params).items()}


@pytest.mark.parametrize("granularity", [1, 4])
def test_krajewski2024_is_initialised_as_its_code_does(granularity):
    """std = sqrt(0.1 / fan_in), cut at ±0.2; an expert's output has the fan-in of the dense feed-forward, whatever G.

    Embeddings have fan-in 1: std 0.316 cut at 0.2, which leaves 0.113."""
    d = 64
    c = preset(
        "krajewski2024", f"moe.granularity={granularity}", "train.batch_sequences=256", "model.n_heads=1", "mesh.data=1"
    )
    params = built(c)
    for name, fan_in in {
        "blocks.attention.w_q_dxHxDh": d, "blocks.attention.w_o_HxDhxd": d, "blocks.moe.router_dxE": d,
        "blocks.moe.w_in_ExdxF": d, "blocks.moe.w_out_Exfxd": 4 * d, "head_dxV": d,
    }.items():  # fmt: skip
        assert params[name].std() == pytest.approx((0.1 / fan_in) ** 0.5, rel=0.03), name
        assert np.abs(params[name]).max() <= 0.2
    for name in ("tokens_Vxd", "positions_Sxd"):
        assert np.abs(params[name]).max() <= 0.2
        assert params[name].std() == pytest.approx(0.113, rel=0.03)


def test_krajewski2024_has_the_parts_that_its_code_has():
    moe = by_name(trainer(preset("krajewski2024", *TINY, *FEW["krajewski2024"])).abstract_state.params)
    assert "norm.scale" not in moe  # no norm before the unembedding
    assert {"blocks.moe.norm.scale", "blocks.moe.norm.bias", "positions_Sxd"} <= moe.keys()  # LayerNorm on the output
    assert not any(".b_" in name for name in moe)  # experts have no biases,
    dense = built(preset("krajewski2024", *TINY, "moe=None"))
    for name, fan_in in (("b_in_f", 16), ("b_out_d", 64)):  # the dense feed-forward has PyTorch's
        b = dense[f"blocks.ff.{name}"]
        assert 0.8 < np.abs(b).max() * fan_in**0.5 <= 1
    assert not any("attention.b" in name or name == "head_bias" for name in dense)


@pytest.mark.parametrize("table", ["table3", "table4", "table7"])
def test_krajewski2024_is_trained_as_its_sheet_says(table):
    c = preset(table, file="configs/krajewski2024.py")
    assert c.batch_tokens == 524_288 and c.steps == 31_250 and c.warmup_steps == 312
    assert (c.optim.betas, c.optim.eps, c.optim.weight_decay, c.optim.clip_norm) == ((0.9, 0.999), 1e-8, 0.1, 0.5)
    schedule = optimizer.schedule_of(c)
    rates = [float(optimizer.learning_rate(c.optim, schedule, np.int32(s))) for s in (0, 311, 312, c.steps)]
    assert rates == pytest.approx([2e-4 / 312, 2e-4, 2e-4, 2e-5], rel=1e-5)
    assert c.moe.group_sequences == 256 and counts.capacity(c) == 256 // c.moe.expansion_rate
    assert (c.moe.softmax, c.moe.load_balance_loss_weight, c.moe.router_z_loss_weight) == ("over_experts", 0, 0)


def test_attention_in_float32():
    """Scores and their use come from float32 at full precision, which a TPU does not do unasked."""
    given = np.zeros((16, 16), np.int32)

    def products(on):
        c = preset("krajewski2024", *TINY, "moe=None", f"model.attention_float32={on}", "model.compute_dtype=bfloat16")
        t = trainer(c)
        text = jax.jit(lambda p: t.model(p)(given)[0]).lower(t.abstract_state.params).as_text()
        return [line for line in text.splitlines() if "dot_general" in line and "batching_dims" in line]

    assert len(products(True)) == len(products(False)) == 2
    assert all("HIGHEST" in line and "bf16" not in line for line in products(True))
    assert all("HIGHEST" not in line and "bf16" in line for line in products(False))


def test_krajewski2025_has_the_papers_variants():
    """8 experts of d_ff, top-1 and top-2, against 64 of d_ff / 8, top-8 and top-16: equal totals and active widths."""
    found = []
    for granularity, active_rate, softmax in (
        (1, 1, "before_top_k"), (8, 1, "after_top_k"), (1, 2, "after_top_k"), (8, 2, "after_top_k"),
    ):  # fmt: skip
        c = preset(
            "krajewski2025",
            f"moe.granularity={granularity}",
            f"moe.active_rate={active_rate}",
            f"moe.softmax={softmax}",
        )
        found.append((c.moe.n_experts, c.moe.top_k, c.moe.d_expert, counts.count_parameters(c, 0)))
    assert [f[:3] for f in found] == [(8, 1, 256), (64, 8, 32), (8, 2, 256), (64, 16, 32)]
    assert len({f[3].n_total_nonemb for f in found}) == 1
    assert found[0][3].n_active_nonemb == found[1][3].n_active_nonemb < found[2][3].n_active_nonemb
    with pytest.raises(UserError, match="router gets no gradient"):  # softmax after the top 1
        preset("krajewski2025", "moe.granularity=1")


def test_abnar2025_is_its_table_1():
    c = preset("abnar2025")
    assert c.moe.sparsity == pytest.approx(0.9) and c.moe.router_z_loss_weight == 1e-3 and c.model.qk_norm == "head"
    assert c.moe.dispatch == "dropless"
    assert c.moe.d_expert == 4 * c.model.d_model and c.model.ff_matrices == 3
    # E and K do not follow G: the same numbers of narrower experts.
    fine = preset("abnar2025", "moe.granularity=2").moe
    assert (fine.n_experts, fine.top_k, fine.d_expert) == (10, 1, 128)


def test_an_unknown_preset_is_refused():
    with pytest.raises(UserError, match=r"configs/presets.py:NAME: krajewski2024, krajewski2025, abnar2025"):
        preset("krajewski2026")


def runs_of(spec):
    file = config_file.load([f"--config={spec}"])
    return grid.expand(file.base.to_dict(), file.cells)


@pytest.mark.parametrize(
    ("variant", "total", "active"), [("11b", 11.1e9, (2.66e9, 3.87e9)), ("56b", 55.8e9, (10.7e9, 17.1e9))]
)
def test_krajewski2025_has_the_papers_sizes(variant, total, active):
    """Equal totals but for the router, whatever G; two active sizes, at one and two times the feed-forward's FLOPs."""
    runs = runs_of(f"configs/krajewski2025.py:{variant}")
    counted = [counts.count_parameters(run.config, run.config.model.vocab_size) for run in runs]
    assert [c.n_total for c in counted] == pytest.approx([total] * 4, rel=3e-3)
    assert [c.n_active for c in counted] == pytest.approx([active[0]] * 2 + [active[1]] * 2, rel=3e-3)
    assert len({c.n_total - c.n_router for c in counted}) == 1
    assert [run.config.moe.softmax for run in runs] == ["before_top_k"] + ["after_top_k"] * 3


def test_krajewski2025_compares_the_order_of_softmax_and_top_k():
    runs = runs_of("configs/krajewski2025.py:order")
    assert [run.config.moe.softmax for run in runs] == ["before_top_k", "after_top_k"] * 3
    assert len({run.name for run in runs}) == 6


@pytest.mark.parametrize("budget", ["3e19", "6e19", "1e20", "3e20", "1e21"])
def test_abnar2025_spends_its_budget_at_every_sparsity(budget):
    runs = runs_of(f"configs/abnar2025.py:{budget}")
    spent = [counts.count_flops(run.config, 50_432).flops_abnar2025 for run in runs]
    assert spent == pytest.approx([float(budget)] * len(runs), rel=1e-3)
    sparsity = [0 if run.config.moe is None else run.config.moe.sparsity for run in runs]
    assert sorted(set(np.round(sparsity, 6))) == [0, 0.25, 0.5, 0.75, 0.9, 0.95, 0.98]
    assert len(runs) in (28, 35) and max(run.config.train.tokens for run in runs) <= 1.2e12
    c = runs[-1].config
    assert c.batch_tokens == 2**21 and not c.optim.weight_decay_by_lr and c.optim.weight_decay == 1e-5


@pytest.mark.parametrize("paper", ["krajewski2025", "abnar2025"])
def test_smoke_forms_are_small(paper):
    runs = runs_of(f"configs/{paper}.py:smoke")
    assert len(runs) == 8
    assert sum(counts.count_flops(run.config, 259).train_flops for run in runs) < 1e12
