"""A router of the user's own plugs in by `module:name`: it trains, means the same on every mesh, and is refused in one
sentence where it does not keep the protocol."""

import jax
import numpy as np
import pytest

from moe_jax.errors import UserError
from moe_jax.model.routers import registry
from moe_jax.training import optimizer
from tests.models import check_causality, config, distance, loss_and_gradients, put, trainer, windows

SIGMOID = """
import jax
import jax.numpy as jnp

from moe_jax.model.routers import Choice, token_statistics


def sigmoid(logits_RxTxE, moe, capacity, bias_E):
    '''Top-k of sigmoid scores, whose weights do not depend on other experts.'''
    weight_RxTxK, expert_RxTxK = jax.lax.top_k(jax.nn.sigmoid(logits_RxTxE), moe.top_k)
    return Choice(expert_RxTxK, weight_RxTxK), token_statistics(logits_RxTxE, expert_RxTxK)


def by_position(logits_RxTxE, moe, capacity, bias_E):
    '''Round and round, whatever the token is; one weight for all.'''
    R, T, E = logits_RxTxE.shape
    expert_TxK = (jnp.arange(T)[:, None] + jnp.arange(moe.top_k)[None]) % E
    expert_RxTxK = jnp.broadcast_to(expert_TxK, (R, T, moe.top_k))
    weight_RxTxK = jnp.full(expert_RxTxK.shape, 1 / moe.top_k, logits_RxTxE.dtype)
    return Choice(expert_RxTxK, weight_RxTxK), token_statistics(logits_RxTxE, expert_RxTxK)


def flat(logits_RxTxE, moe, capacity, bias_E):
    choice, statistics = sigmoid(logits_RxTxE, moe, capacity, bias_E)
    return choice.replace(weight_RxTxK=choice.weight_RxTxK[..., 0]), statistics


def alone(logits_RxTxE, moe, capacity, bias_E):
    return sigmoid(logits_RxTxE, moe, capacity, bias_E)[0]


def broken(logits_RxTxE, moe, capacity, bias_E):
    return logits_RxTxE.reshape(7)


def narrow(logits_RxTxE, moe):
    pass


def filled(logits_RxTxE, moe, capacity, bias_E):
    from moe_jax.model.routers.slots import fill_slots

    return fill_slots(*sigmoid(logits_RxTxE, moe, capacity, bias_E), capacity)


number = 3
"""


@pytest.fixture(autouse=True)
def _module(tmp_path, monkeypatch):
    (tmp_path / "their_routers.py").write_text(SIGMOID)
    (tmp_path / "their_mistake.py").write_text("import no_such_package")
    monkeypatch.syspath_prepend(tmp_path)


def with_router(name, *overrides):
    return config(f"moe.router=their_routers:{name}", "moe.capacity_factor=8", *overrides)


@pytest.mark.parametrize("dispatch", ["slots", "dropless", "dense"])
def test_ten_steps_lower_the_loss(dispatch):
    c = with_router("sigmoid", f"moe.dispatch={dispatch}", "optim.learning_rate=0.01", "train.tokens=2560")
    t = trainer(c)
    state, losses = t.init(0), []
    for _ in range(10):
        state, metrics = t.step(state, put(t, windows(c)), optimizer.schedule_of(c))
        losses.append(float(metrics["loss"]))
    assert losses[-1] < losses[0] - 0.1


@pytest.mark.parametrize(
    "router", ["sigmoid", *(pytest.param(r, marks=pytest.mark.slow) for r in ("by_position", "filled"))]
)
def test_dispatches_and_meshes_agree(router):
    # Without the balancing loss, whose gradient is rounding alone where all experts have the same load.
    balance = "moe.load_balance_loss_weight=0"
    c = with_router(router, balance)
    loss, gradients = loss_and_gradients(trainer(c), windows(c))
    for other in (
        trainer(with_router(router, balance, "moe.dispatch=dense")),
        trainer(c, data=2, expert=4),
        *([trainer(with_router(router, balance, "moe.dispatch=dropless"), expert=8)] if router != "filled" else []),
    ):
        other_loss, other_gradients = loss_and_gradients(other, windows(c))
        assert other_loss == pytest.approx(loss, rel=1e-5)
        for name, gradient in gradients.items():
            assert distance(other_gradients[name], gradient) < 1e-5, name


def test_gradients_reach_a_router_through_its_weights():
    c = with_router("sigmoid", "moe.load_balance_loss_weight=0")
    _, gradients = loss_and_gradients(trainer(c), windows(c))
    (router,) = (g for name, g in gradients.items() if "router_dxE" in name)
    assert np.abs(router).max() > 0


def test_its_model_is_causal():
    check_causality(trainer(with_router("sigmoid")))


@pytest.mark.parametrize(
    ("router", "words"),
    [
        ("no_such_module:route", "there is no module no_such_module in .* or on Python's path"),
        ("their_mistake:route", "cannot be imported: No module named 'no_such_package'"),
        ("their_routers:absent", "the module their_routers has no 'absent'"),
        ("their_routers:number", "must be a function .*, not int"),
        ("their_routers:narrow", "must be a function .*: too many positional arguments"),
        ("their_routers:broken", "fails on logits of shape .*: TypeError"),
        ("their_routers:alone", r"must return \(Choice or Slots, Statistics\)"),
        (
            "their_routers:flat",
            r"Choice.weight_RxTxK as float32 of shape \(2, 16\); must be float32 of shape \(2, 16, 2\)",
        ),
    ],
)
def test_a_router_that_does_not_keep_the_protocol_is_refused(router, words):
    with pytest.raises(UserError, match=f"config.moe.router = '{router}': .*{words}"):
        trainer(config(f"moe.router={router}"))


def test_a_router_that_fills_slots_is_not_dropless():
    with pytest.raises(
        UserError, match=r"config\.moe\.dispatch = 'dropless': the router their_routers:filled fills slots"
    ):
        trainer(with_router("filled", "moe.dispatch=dropless"))


@pytest.mark.parametrize(
    ("router", "overrides", "dispatch"),
    [
        ("sigmoid", (), "dropless"),
        ("sigmoid", ("eval.dispatch=slots",), "slots"),
        ("sigmoid", ("moe.batch_prioritised=True",), "slots"),
        ("sigmoid", ("moe.dispatch=dense",), "dense"),
        ("filled", (), "slots"),
        ("filled", ("moe.dispatch=dense",), "dense"),
    ],
)
def test_what_fills_slots_itself_is_evaluated_as_it_is_trained(router, overrides, dispatch):
    c = with_router(router, *overrides)
    assert registry.evaluation_dispatch(c) == dispatch
    t = trainer(c)
    losses, dropped = t.evaluate(dispatch, t.init(0).weights, jax.device_put(windows(c), t.evaluate_sharding))
    assert np.isfinite(losses).all() and dropped >= 0


def test_a_router_that_fills_slots_has_no_dropless_evaluation():
    with pytest.raises(UserError, match=r"config\.eval\.dispatch = 'dropless': the router their_routers:filled fills"):
        registry.evaluation_dispatch(with_router("filled", "eval.dispatch=dropless"))


def test_ours_are_there_by_name():
    for name, router in registry.ROUTERS.items():
        assert registry.load(name) is router
        c = config(
            f"moe.softmax={'before_top_k' if name == 'token_choice' else 'over_experts'}",
            f"moe.router={name}",
            "moe.load_balance_loss_weight=0",
            "moe.group_sequences=8",
        )
        registry.check(router, c, 3, jax.numpy.float32)
