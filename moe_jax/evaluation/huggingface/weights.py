"""The tensors of an architecture by name, and our parameters: each from the other, to the bit.

A matrix of PyTorch's Linear is [out, in], ours [in, out], with heads as axes of their own. Its experts are matrices of
their own in a file (transformers puts them together when it reads them), ours one array; gate and values are two
matrices there, halves of one here, values first.

L  layers     E  experts    f  width of an expert or a feed-forward
"""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from moe_jax.config.schema import Config
from moe_jax.errors import UserError
from moe_jax.evaluation.huggingface.architectures import Architecture

Tree = dict[str, Any]
_WHOLE, _VALUES, _GATE = "whole", "values", "gate"


@dataclasses.dataclass(frozen=True)
class Place:
    """Where a tensor of the file lies in our parameters: an entry of a parameter's first axes, and which half of its
    last."""

    path: tuple[str, ...]
    entry: tuple[int, ...] = ()  # layer, or layer and expert
    inputs: int | None = 1  # axes of inputs, which come first; None: no matrix, or one that is not turned
    half: str = _WHOLE

    def of(self, array: np.ndarray) -> np.ndarray:
        """Our numbers, a view of the parameter `array`, in our shape."""
        part = array[self.entry]
        if self.half == _WHOLE:
            return part
        f = part.shape[-1] // 2
        return part[..., :f] if self.half == _VALUES else part[..., f:]

    def to_tensor(self, array: np.ndarray) -> np.ndarray:
        """The tensor, from the whole parameter."""
        part = self.of(array)
        if self.inputs is None:
            return np.ascontiguousarray(part)
        rows = int(np.prod(part.shape[: self.inputs]))
        return np.ascontiguousarray(part.reshape(rows, -1).T)

    def tensor_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """The tensor's shape, from that of the whole parameter."""
        return self.to_tensor(np.broadcast_to(np.int8(0), shape)).shape

    def put(self, tensor: np.ndarray, array: np.ndarray) -> None:
        """Writes the tensor into the whole parameter."""
        part = self.of(array)
        part[...] = tensor.reshape(part.shape) if self.inputs is None else tensor.T.reshape(part.shape)


def places(a: Architecture, config: Config) -> dict[str, Place]:
    """name of a tensor -> its place, of all tensors of the architecture."""
    found = {"model.embed_tokens.weight": Place(("tokens_Vxd",), inputs=None)}
    for layer in range(config.model.n_layers):
        found |= {f"model.layers.{layer}.{name}": place for name, place in _layer(a, config, layer)}
    found["model.norm.weight"] = Place(("norm", "scale"), inputs=None)
    if not config.model.tied_embeddings:
        found["lm_head.weight"] = Place(("head_dxV",))
    return found


def _layer(a: Architecture, config: Config, layer: int) -> Iterator[tuple[str, Place]]:
    def at(*path: str, **rest: Any) -> Place:
        return Place(("blocks", *path), (layer,), **rest)

    yield "input_layernorm.weight", at("attention_norm", "scale", inputs=None)
    yield "post_attention_layernorm.weight", at("ff_norm", "scale", inputs=None)
    yield "self_attn.q_proj.weight", at("attention", "w_q_dxHxDh")
    yield "self_attn.k_proj.weight", at("attention", "w_k_dxNxDh")
    yield "self_attn.v_proj.weight", at("attention", "w_v_dxNxDh")
    yield "self_attn.o_proj.weight", at("attention", "w_o_HxDhxd", inputs=2)
    if config.model.qk_norm != "none":
        yield "self_attn.q_norm.weight", at("attention", "q_norm", "scale", inputs=None)
        yield "self_attn.k_norm.weight", at("attention", "k_norm", "scale", inputs=None)
    if not a.moe:
        yield from _feed_forward("mlp.", ("blocks", "ff"), (layer,))
        return
    mixtral = a.model_type == "mixtral"
    moe = "block_sparse_moe" if mixtral else "mlp"
    yield f"{moe}.gate.weight", at("moe", "router_dxE")
    gate, values, out = ("w1", "w3", "w2") if mixtral else ("gate_proj", "up_proj", "down_proj")
    for e in range(config.moe.n_experts):
        w_in, w_out = ("blocks", "moe", "w_in_ExdxF"), ("blocks", "moe", "w_out_Exfxd")
        yield f"{moe}.experts.{e}.{gate}.weight", Place(w_in, (layer, e), half=_GATE)
        yield f"{moe}.experts.{e}.{values}.weight", Place(w_in, (layer, e), half=_VALUES)
        yield f"{moe}.experts.{e}.{out}.weight", Place(w_out, (layer, e))
    if a.shared:
        yield from _feed_forward("mlp.shared_expert.", ("blocks", "moe", "shared"), (layer,))
        yield "mlp.shared_expert_gate.weight", at("moe", "shared_gate_d")


def _feed_forward(prefix: str, path: tuple[str, ...], entry: tuple[int, ...]) -> Iterator[tuple[str, Place]]:
    yield f"{prefix}gate_proj.weight", Place((*path, "w_in_dxF"), entry, half=_GATE)
    yield f"{prefix}up_proj.weight", Place((*path, "w_in_dxF"), entry, half=_VALUES)
    yield f"{prefix}down_proj.weight", Place((*path, "w_out_fxd"), entry)


def tensors(weights: Tree, found: Mapping[str, Place]) -> Iterator[tuple[str, np.ndarray]]:
    """(name, tensor) of each place, from our parameters (numpy). Raises AssertionError where one of them has no
    place: it would be left out."""
    assert set(_paths(weights)) == {place.path for place in found.values()}, "every parameter has its place"
    for name, place in found.items():
        yield name, place.to_tensor(_at(weights, place.path))


def parameters(read: Mapping[str, np.ndarray], found: Mapping[str, Place], shapes: Tree, where: str) -> Tree:
    """Our parameters (numpy), of the shapes and dtypes of `shapes`, from tensors by name.

    Raises UserError, which names the first tensor that is missing, unknown or of another shape; `where` they are."""
    if unknown := sorted(read.keys() - found.keys()):
        raise UserError(f"{where}: has a tensor that its config.json does not account for, {unknown[0]}")
    for name, place in found.items():
        if name not in read:
            raise UserError(f"{where}: has no tensor {name}")
        wanted = place.tensor_shape(_at(shapes, place.path).shape)
        if read[name].shape != wanted:
            raise UserError(f"{where}: its tensor {name} has the shape {read[name].shape}, not {wanted}")
    made = _mapped(shapes, lambda leaf: np.empty(leaf.shape, leaf.dtype))
    for name, place in found.items():
        place.put(read[name], _at(made, place.path))
    return made


def _at(tree: Tree, path: tuple[str, ...]) -> Any:
    for name in path:
        tree = tree[name]
    return tree


def _paths(tree: Tree, above: tuple[str, ...] = ()) -> Iterator[tuple[str, ...]]:
    for name, value in tree.items():
        if isinstance(value, dict):
            yield from _paths(value, (*above, name))
        else:
            yield (*above, name)


def _mapped(tree: Tree, function: Any) -> Tree:
    return {k: _mapped(v, function) if isinstance(v, dict) else function(v) for k, v in tree.items()}
