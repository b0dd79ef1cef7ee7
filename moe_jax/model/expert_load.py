"""The load of experts: metrics of it, and the bias that evens it out. A load is a number of assignments.

L  layers     E  experts
"""

from typing import Any

import jax
import jax.numpy as jnp


def rebalanced(biases: Any, load_LxE: jax.Array, rate: float) -> Any:
    """Biases after a step whose whole batch gave the loads load_LxE: +rate for experts below the mean load, −rate for
    those above (Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing", algorithm 1).

    Loads are whole numbers of the whole batch, so meshes and microbatches cannot change what follows from them. The
    paper adds the bias to a sigmoid's scores, as moe.score=sigmoid does here. With softmax it is added to logits:
    between softmax shares, which it found hard to balance, the gap of two experts depends on all the others."""
    mean_Lx1 = load_LxE.mean(-1, keepdims=True)
    below_LxE = jnp.sign(mean_Lx1 - load_LxE.astype(mean_Lx1.dtype))
    return jax.tree.map(lambda bias_LxE: bias_LxE + (rate * below_LxE).astype(bias_LxE.dtype), biases)


def max_over_mean(load_xE: jax.Array) -> jax.Array:
    """The largest load over the mean, over the last axis: 1 when balanced, E when one expert takes all."""
    mean = load_xE.mean(-1)
    return load_xE.max(-1).astype(mean.dtype) / mean


def logged(statistics: dict[str, jax.Array], every_layer: bool) -> dict[str, jax.Array]:
    """Metrics of a step's MoE layers for metrics.jsonl, from their statistics.

    Each is a mean over layers, except `max_over_mean_load`: the largest of any layer. `unused_experts` is the share of
    experts that no token asked for. With `every_layer` there are also lists with one number a layer."""
    if not statistics:
        return {}
    layers = {name: value_L for name, value_L in statistics.items() if name != "load_E"}
    load_LxE = statistics["load_E"]
    load = {"max_over_mean_load": max_over_mean(load_LxE), "unused_experts": (load_LxE == 0).mean(-1)}
    scalars = {name: value_L.mean() for name, value_L in (layers | load).items()}
    scalars["max_over_mean_load"] = load["max_over_mean_load"].max()
    lists = {f"{name}_by_layer": value_L for name, value_L in (layers | load).items()} if every_layer else {}
    return scalars | lists
