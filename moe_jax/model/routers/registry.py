"""Routers by name: token_choice, expert_choice, or `module:name` for a router of the user's own."""

import importlib
import inspect
import os
from typing import Any

import jax
import jax.numpy as jnp

from moe_jax.config import counts, own_modules
from moe_jax.config.checks import refuse
from moe_jax.config.schema import Config
from moe_jax.model.layers import parameter_dtype
from moe_jax.model.routers.expert_choice import expert_choice
from moe_jax.model.routers.protocol import Choice, Router, Slots, Statistics
from moe_jax.model.routers.token_choice import token_choice

ROUTERS: dict[str, Router] = {"token_choice": token_choice, "expert_choice": expert_choice}
_FORM = "(logits_RxTxE, moe, capacity, bias_E); see moe_jax/model/routers/protocol.py"


def load(router: str) -> Router:
    """The router of config.moe.router.

    A user's module is looked for in the current folder and on Python's path (PYTHONPATH). Raises UserError where there
    is no such module, where it cannot be imported, or where the name in it is not a function of the protocol's
    form."""
    if router in ROUTERS:
        return ROUTERS[router]
    module_name, _, name = router.partition(":")
    found = getattr(_import(router, module_name), name, None)
    if found is None:
        refuse("moe.router", router, f"the module {module_name} has no {name!r}")
    if not callable(found):
        refuse("moe.router", router, f"must be a function {_FORM}, not {type(found).__name__}")
    try:
        inspect.signature(found).bind(None, None, None, None)
    except (TypeError, ValueError) as e:
        refuse("moe.router", router, f"must be a function {_FORM}: {e}")
    return found


def check(router: Router, config: Config, capacity: int, dtype: Any) -> None:
    """Raises UserError where a user's router fails on abstract logits of this `dtype`, or gives other shapes or types
    than the protocol's; nothing is computed."""
    moe = config.moe
    R, T, E, K, C = 2, moe.group_sequences * config.data.sequence_length, moe.n_experts, moe.top_k, capacity
    given = _abstractly_routed(router, config, (R, T, E), capacity, dtype)
    if not (isinstance(given, tuple) and len(given) == 2 and isinstance(given[1], Statistics)):
        refuse("moe.router", moe.router, "must return (Choice or Slots, Statistics)")
    routed, statistics = given
    if isinstance(routed, Choice):
        wanted = {"expert_RxTxK": ((R, T, K), jnp.int32), "weight_RxTxK": ((R, T, K), dtype)}
    elif isinstance(routed, Slots):
        if moe.dispatch == "dropless":
            refuse("moe.dispatch", moe.dispatch, f"the router {moe.router} fills slots (it returns Slots); use slots")
        wanted = {"token_RxExC": ((R, E, C), jnp.int32), "weight_RxExC": ((R, E, C), dtype)}
        if routed.slot_RxTxK is not None:
            wanted["slot_RxTxK"] = ((R, T, K), jnp.int32)
    else:
        refuse(
            "moe.router", moe.router, f"must return (Choice or Slots, Statistics), not {type(routed).__name__} first"
        )
    _check_fields(moe.router, routed, wanted)
    whole, real = ((R, E), jnp.int32), ((R,), dtype)
    wanted = {"load_RxE": whole, "dropped_R": ((R,), jnp.int32), "balance_R": real, "z_R": real, "entropy_R": real}
    _check_fields(moe.router, statistics, wanted)


def _abstractly_routed(router: Router, config: Config, shape_RxTxE: tuple[int, ...], capacity: int, dtype: Any) -> Any:
    """What a user's router gives for abstract logits. Raises UserError where it fails."""
    moe = config.moe
    bias_E = jax.ShapeDtypeStruct(shape_RxTxE[-1:], dtype) if moe.bias_update_rate else None
    try:
        return jax.eval_shape(
            lambda logits_RxTxE, bias_E: router(logits_RxTxE, moe, capacity, bias_E),
            jax.ShapeDtypeStruct(shape_RxTxE, dtype), bias_E,
        )  # fmt: skip
    except Exception as e:
        refuse("moe.router", moe.router, f"fails on logits of shape {shape_RxTxE}: {type(e).__name__}: {e}")


def evaluation_dispatch(config: Config) -> str | None:
    """The dispatch of evaluations: eval.dispatch; where a user's router leaves that open, dropless if it gives a
    Choice, else moe.dispatch. None for a dense model.

    Raises UserError where eval.dispatch is dropless and the router fills slots itself."""
    moe, asked = config.moe, config.eval.dispatch
    if moe is None or moe.router_module is None or moe.dispatch == "dropless" or asked not in (None, "dropless"):
        return asked
    shape = 2, moe.group_sequences * config.data.sequence_length, moe.n_experts
    given = _abstractly_routed(load(moe.router), config, shape, counts.capacity(config), parameter_dtype(config.model))
    fills_slots = isinstance(given, tuple) and given and isinstance(given[0], Slots)
    if fills_slots and asked == "dropless":
        refuse("eval.dispatch", asked, f"the router {moe.router} fills slots (it returns Slots); use None")
    return moe.dispatch if fills_slots else "dropless"


def _check_fields(router: str, owner: Any, wanted: dict[str, tuple[tuple[int, ...], Any]]) -> None:
    for field, (shape, dtype) in wanted.items():
        value = getattr(owner, field)
        found = getattr(value, "shape", None), getattr(value, "dtype", type(value).__name__)
        if found != (shape, jnp.dtype(dtype)):
            refuse(
                "moe.router", router,
                f"gives {type(owner).__name__}.{field} as {found[1]} of shape {found[0]}; must be "
                f"{jnp.dtype(dtype)} of shape {shape}",
            )  # fmt: skip


def _import(router: str, module_name: str) -> Any:
    """The user's module."""
    own_modules.look_in_current_folder()
    try:
        return importlib.import_module(module_name)
    except ModuleNotFoundError as e:
        if not f"{module_name}.".startswith(f"{e.name}."):  # it is there, and what it imports is not
            refuse("moe.router", router, f"cannot be imported: {e}")
        refuse(
            "moe.router", router,
            f"there is no module {module_name} in {os.getcwd()} or on Python's path; start in its folder, or name that "
            "in PYTHONPATH",
        )  # fmt: skip
    except (Exception, SystemExit) as e:
        refuse("moe.router", router, f"cannot be imported: {type(e).__name__}: {e}")
