"""The decoder: causal, and its chunked losses are the plain ones."""

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from moe_jax.config.schema import MeshConfig
from moe_jax.model import sharding, transformer
from moe_jax.model.transformer import document_numbers
from moe_jax.plan import aot
from tests.models import END_OF_DOCUMENT, EXPERT_CHOICE, VOCABULARY, check_causality, config, put, trainer, windows

KINDS = {
    "token choice, heavy overflow": ("moe.capacity_factor=0.5",),
    "rope, gated, rmsnorm, qk-norm": (
        "model.positions=rope", "model.activation=swiglu", "model.norm=rmsnorm", "model.qk_norm=head", "moe=None",
    ),
    "shared keys, QK-norm of all heads": (
        "model.n_heads=4", "model.n_kv_heads=2", "model.head_dim=6", "model.qk_norm=full", "model.positions=rope",
    ),
    "deepseek's router, gated shared expert": (
        "moe.active_rate=1.5", "moe.score=sigmoid", "moe.renormalise=True", "moe.routed_scale=2.5",
        "moe.expert_groups=4", "moe.chosen_groups=2", "moe.shared_experts=1", "moe.shared_gate=True",
    ),
    "expert choice": EXPERT_CHOICE,
    "dropless": ("moe.dispatch=dropless",),
}  # fmt: skip


def of_kind(overrides):
    """moe=None last: SMALL sets a field of moe."""
    c = config(*(o for o in overrides if o != "moe=None"))
    return dataclasses.replace(c, moe=None) if "moe=None" in overrides else c


@pytest.mark.parametrize("overrides", KINDS.values(), ids=KINDS)
def test_no_output_depends_on_a_later_token(overrides):
    check_causality(trainer(of_kind(overrides)))


@pytest.mark.parametrize("overrides", KINDS.values(), ids=KINDS)
def test_no_output_has_a_gradient_to_a_later_token(overrides):
    c = of_kind(overrides)
    t = trainer(c)
    params, given = t.init(0).params, windows(c)[:, :-1]

    def output_at(embeddings_BxSxd, position):
        # A table with a row for every input, so that each has a gradient of its own.
        table = embeddings_BxSxd.reshape(-1, embeddings_BxSxd.shape[-1])
        index = np.arange(given.size, dtype=np.int32).reshape(given.shape)
        return jnp.sum(t.model(params | {"tokens_Vxd": table})(index)[0][:, position] ** 2)

    embeddings = params["tokens_Vxd"][given]
    gradient_at = jax.jit(jax.grad(output_at))
    for position in (0, 9):
        gradient = np.asarray(gradient_at(embeddings, position))
        assert np.abs(gradient[:, : position + 1]).max() > 0
        assert np.all(gradient[:, position + 1 :] == 0)


@pytest.mark.parametrize("overrides", [("moe=None",), ("moe.capacity_factor=8",)], ids=["dense", "nothing dropped"])
@pytest.mark.parametrize("masked", [True, False])
def test_documents_are_masked(masked, overrides):
    """Other tokens in a window's first document change nothing in its second, where it is masked."""
    c = of_kind((*overrides, f"data.mask_documents={masked}"))
    t = trainer(c)
    params = t.init(0).params
    hidden = jax.jit(lambda w: t.model(params)(w)[0])
    given = 1 + windows(c)[:, :-1] % (VOCABULARY - 1)
    given[:, 6] = END_OF_DOCUMENT
    changed = given.copy()
    changed[:, :6] = 1 + changed[:, :6] % (VOCABULARY - 1)
    before, after = np.asarray(hidden(given)), np.asarray(hidden(changed))
    assert np.array_equal(before[:, 7:], after[:, 7:]) == masked
    assert not np.array_equal(before[:, 6], after[:, 6])  # the end belongs to what it ends


def test_documents_are_numbered():
    tokens = np.array([[5, 0, 0, 7, 8, 0], [1, 2, 3, 4, 5, 6]], np.int32)
    assert document_numbers(tokens, 0).tolist() == [[0, 0, 1, 2, 2, 2], [0] * 6]


@pytest.mark.parametrize("positions", [5, 1000])
def test_the_chunked_losses_are_the_plain_ones(positions):
    """Those of each token, and their mean, which has a backward pass of its own."""
    c = config(f"model.logits_positions={positions}")
    t = trainer(c)
    params, given = t.init(0).params, windows(c)

    def plain(p):
        model = t.model(p)
        hidden, _ = model(given[:, :-1])
        logp = jax.nn.log_softmax(model.logits(hidden), axis=-1)
        return -jnp.take_along_axis(logp, given[:, 1:, None], axis=-1)[..., 0]

    def both(loss):
        return jax.jit(jax.value_and_grad(loss))(params)

    def agree(a, b):
        for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-6)

    agree(both(lambda p: t.model(p).losses(given)[0][3, 5:].mean()), both(lambda p: plain(p)[3, 5:].mean()))
    agree(both(lambda p: 3 * t.model(p).loss(given)[0]), both(lambda p: 3 * plain(p).mean()))


def test_a_tied_table_has_both_gradients():
    """Of the embedding and of the unembedding, which an untied model with the same numbers has apart."""
    tied, apart = (trainer(config(f"model.tied_embeddings={t}")) for t in (True, False))
    given = windows(tied.config)
    params = tied.init(0).params
    table = params["tokens_Vxd"]
    assert "head_dxV" not in params
    loss, gradients = jax.jit(jax.value_and_grad(lambda p: tied.model(p).loss(given)[0]))(params)
    same, others = jax.jit(jax.value_and_grad(lambda p: apart.model(p).loss(given)[0]))(params | {"head_dxV": table.T})
    assert float(loss) == pytest.approx(float(same), rel=1e-6)
    both = others.pop("head_dxV").T + others["tokens_Vxd"]
    for a, b in zip(jax.tree.leaves(gradients), jax.tree.leaves(others | {"tokens_Vxd": both}), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)
    hidden = tied.model(params)(given[:, :-1])[0]
    np.testing.assert_allclose(tied.model(params).logits(hidden), hidden @ table.T, rtol=1e-5, atol=1e-6)


def test_a_tied_model_begins_with_the_logits_of_an_untied_one():
    """Its table has the unembedding's scale, so the first loss is about ln V."""
    losses = []
    for tied in (True, False):
        t = trainer(config(f"model.tied_embeddings={tied}", "model.d_model=128"))
        losses.append(float(jax.jit(lambda p, t=t: t.model(p).loss(windows(t.config))[0])(t.init(0).params)))
    assert losses == pytest.approx([np.log(VOCABULARY)] * 2, abs=0.1)


def test_depth_does_not_change_what_is_compiled():
    """Blocks are scanned: the program of 6 blocks is as long as that of 2."""

    def lines(blocks):
        c = config(f"model.n_layers={blocks}")
        t = trainer(c)
        return len(jax.jit(t.gradients).lower(t.abstract_state.params, windows(c)[None]).as_text().splitlines())

    assert lines(6) == lines(2)


def test_unrolled_layers_train_as_scanned(monkeypatch):
    c = config("model.d_model=128", "model.n_layers=3")
    t = trainer(c)
    given, params = windows(c)[None], t.init(0).params

    def found():
        return jax.tree.leaves(jax.jit(lambda *given: t.gradients(*given))(params, given))

    assert transformer.unrolled(c, t.layout)
    apart = found()
    monkeypatch.setattr(transformer, "UNROLLED_LAYERS", 0)
    assert not transformer.unrolled(c, t.layout)
    for a, b in zip(apart, found(), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-7)


REMAT = ("none", "block", "dispatch")


def test_remat_changes_nothing():
    a, *others = (trainer(config(f"model.remat={name}")) for name in REMAT)
    given = windows(a.config)[None]
    params = a.init(0).params
    wanted = jax.tree.leaves(jax.jit(a.gradients)(params, given))
    for t in others:
        for x, y in zip(jax.tree.leaves(jax.jit(t.gradients)(params, given)), wanted, strict=True):
            np.testing.assert_allclose(x, y, rtol=1e-5, atol=1e-7)


@pytest.mark.parametrize("overrides", [(), EXPERT_CHOICE], ids=["token choice", "expert choice"])
def test_remat_dispatch_neither_routes_nor_exchanges_twice(overrides):
    def ops(remat):
        c = config(*overrides, f"model.remat={remat}")
        t = trainer(c, data=1, expert=4)
        text = jax.jit(t.gradients).lower(t.abstract_state.params, put(t, windows(c))).compile().as_text()
        return [sum(op in line for line in text.splitlines()) for op in (" all-to-all(", " sort(", "TopK")]

    none, block, dispatch = map(ops, REMAT)
    assert dispatch == none and none[0] > 0 and none[2] > 0
    assert block[0] > none[0] and block[2] > none[2]


def test_no_scores_of_all_positions_are_in_the_step():
    """At 4,096 positions, documents masked, nothing in the lowered train step has all queries and all keys."""
    c = config("data.sequence_length=4096", "data.mask_documents=True", "train.batch_sequences=2")
    mesh = sharding.make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1])
    shapes = re.findall(r"tensor<((?:\d+x)+)", aot.lower_step(c, VOCABULARY, sharding.Layout(mesh)).as_text())
    lengths = [[int(n) for n in shape.split("x")[:-1]] for shape in shapes]
    assert max(map(max, lengths)) > 4096  # the window is there
    assert [shape for shape in lengths if shape.count(4096) > 1] == []
