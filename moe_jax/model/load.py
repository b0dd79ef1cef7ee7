"""How many assignments each expert was asked to take: what is said of it, and the bias that evens it out.

L  blocks     E  experts
"""

from typing import Any

import jax
import jax.numpy as jnp


def rebalanced(biases: Any, load_LxE: jax.Array, rate: float) -> Any:
    """Biases after a step in which the whole batch asked for `load_LxE`: +rate for the experts below the mean, −rate
    for those above (Wang et al. 2024, "Auxiliary-Loss-Free Load Balancing", algorithm 1).

    Loads are whole numbers of the whole batch, so meshes and microbatches cannot change what follows from them. The
    paper adds the bias to a sigmoid's scores. Here it is added to logits: between softmax shares, which it found hard
    to balance, the gap of two experts depends on all the others."""
    below_LxE = jnp.sign(load_LxE.mean(-1, keepdims=True) - load_LxE)
    return jax.tree.map(lambda bias_LxE: bias_LxE + (rate * below_LxE).astype(bias_LxE.dtype), biases)


def max_over_mean(load_xE: jax.Array) -> jax.Array:
    """The most loaded expert's load over the mean, of every layer: 1 when balanced, E when one takes all."""
    return load_xE.max(-1) / load_xE.mean(-1)


def logged(statistics: dict[str, jax.Array], every_layer: bool) -> dict[str, jax.Array]:
    """What metrics.jsonl says of a step's MoE layers, from their statistics: means over layers, but the largest
    `max_over_mean_load` and, with it, `unused_experts`, the share of all experts that nobody asked for. With
    `every_layer` also lists, one number a layer."""
    if not statistics:
        return {}
    layers = {name: value_L for name, value_L in statistics.items() if name != "load_E"}
    load_LxE = statistics["load_E"]
    load = {"max_over_mean_load": max_over_mean(load_LxE), "unused_experts": (load_LxE == 0).mean(-1)}
    scalars = {name: value_L.mean() for name, value_L in (layers | load).items()}
    scalars["max_over_mean_load"] = load["max_over_mean_load"].max()
    lists = {f"{name}_by_layer": value_L for name, value_L in (layers | load).items()} if every_layer else {}
    return scalars | lists
