"""Time of a MoE layer against its dense twin, forward and backward, on the device that JAX finds.

    python -m experiments.benchmarks.moe_layer                        (two CPU cores: two minutes)
    XLA_PYTHON_CLIENT_PREALLOCATE=false python -m experiments.benchmarks.moe_layer \
        --d_model=1024 --tokens=32768 --dtype=bfloat16                (one GPU or TPU chip)
    python -m experiments.benchmarks.moe_layer --activation=swiglu    (with the peer: pip install '.[bench]')

The twin has the same active width, so its FLOPs are those of the experts at capacity 1. All layers of a row are timed
in turn, repeat by repeat, so that a busy machine slows them alike; a ratio is the median over repeats. Routing is
exactly balanced (token t takes the t-th k experts, round and round) or skewed (expert e's logit is lower by skew ·
ln(e + 1)). Inputs and router weights alone make it so: the layer is the one that trains. `of peak` is the twin's FLOPs
over the time, as a share of the device's published bf16 rate, where that is known. The peer is the OLMoE layer of
Hugging Face transformers on torch with its `grouped_mm` experts; it drops nothing, and its experts are gated (swiglu).
"""

import argparse
import dataclasses
import statistics
import sys
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx

from experiments.benchmarks import results
from experiments.benchmarks.machine import processor
from moe_jax import chips
from moe_jax.cli import malloc
from moe_jax.config import config_file
from moe_jax.config.schema import Config, MeshConfig
from moe_jax.model import sharding
from moe_jax.model.expert_load import max_over_mean
from moe_jax.model.layers import FeedForward
from moe_jax.model.moe import MoeLayer

Step = Callable[[], Any]  # one forward and backward pass, finished when it returns


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--shapes", default="16x1,64x4,256x16,1024x16", help="experts x k, comma-separated")
    parser.add_argument("--dispatch", default="slots,dropless", help="comma-separated")
    parser.add_argument("--d_model", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=4096)
    parser.add_argument("--sequence", type=int, help="tokens of a routing group (default: all of them)")
    parser.add_argument("--dtype", default="float32", choices=("float32", "bfloat16"))
    parser.add_argument("--activation", default="relu", choices=("relu", "swiglu"))
    parser.add_argument("--capacity", type=float, default=1.25)
    parser.add_argument("--skew", type=float, default=0.3)
    parser.add_argument("--repeats", type=int, default=11)
    results.add_flag(parser)
    return parser.parse_args()


def main() -> None:
    args = arguments()
    malloc.start_again()  # as moe-jax train does
    dispatches = args.dispatch.split(",")
    peer, why_no_peer = find_peer(args)
    device = jax.devices()[0]
    peak_flops = chips.peak_flops(device.device_kind) if args.dtype == "bfloat16" else None
    columns, rows = Columns(args, peak_flops, dispatches, peer is not None), []
    for shape in args.shapes.split(","):
        for routing in ("balanced", "skewed"):
            n_experts, k = map(int, shape.split("x"))
            c = layer_config(args, n_experts, k)
            x_BxSxd, router_dxE = routed_inputs(c, routing, args.skew)
            steps = {"dense": dense_step(c, x_BxSxd)}
            seen = {}
            for name in dispatches:
                steps[name], seen[name] = moe_step(c, name, x_BxSxd, router_dxE)
            if peer:
                step = peer(c, x_BxSxd, router_dxE)
                try:
                    step()
                    steps["peer"] = step
                except RuntimeError as e:  # its kernels take 1024 experts at the most on a GPU
                    print(f"no peer at {shape}: {str(e).splitlines()[0]}")
            row = columns.row(f"{n_experts} × {k}", routing, interleaved(steps, args.repeats), seen)
            rows.append(row)
            print(
                *results.Results("", columns.formats, [row]).cells()[0], file=sys.stderr
            )  # the table comes at the end
    title = (
        f"d {args.d_model}, d_ff {4 * args.d_model}, {args.tokens} tokens, {args.dtype}, {args.activation}, capacity "
        f"{args.capacity:g}, jax {jax.__version__}; {processor() if device.platform == 'cpu' else device.device_kind}"
    )
    results.show(results.Results(title, columns.formats, rows), args.out)
    if why_no_peer:
        print(why_no_peer)


def layer_config(args: argparse.Namespace, n_experts: int, k: int) -> Config:
    sequence = args.sequence or args.tokens
    overrides = (
        f"model.d_model={args.d_model}", f"model.n_heads={args.d_model // 32}", f"model.activation={args.activation}",
        f"model.compute_dtype={args.dtype}", f"moe.expansion_rate={n_experts / k}", f"moe.granularity={k}",
        f"moe.capacity_factor={args.capacity}", f"data.sequence_length={sequence}",
        f"train.batch_sequences={args.tokens // sequence}",
    )  # fmt: skip
    return config_file.load(["--config=configs/common.py", *(f"--config.{o}" for o in overrides)]).config


def routed_inputs(c: Config, routing: str, skew: float) -> tuple[jax.Array, jax.Array]:
    """(x_BxSxd, router_dxE) that route as asked: the first features are the same in all tokens, or name a token's
    experts."""
    d, E, k = c.model.d_model, c.moe.n_experts, c.moe.top_k
    shape = (c.train.batch_sequences, c.data.sequence_length)
    random = np.random.default_rng(0)
    x_BxSxd = random.standard_normal((*shape, d))
    if routing == "balanced":
        n_sets = E // k
        if E % k or n_sets > d:
            raise SystemExit(f"balanced routing of {E} experts × {k} needs d_model >= {E} / {k}, a whole number")
        router_dxE = random.standard_normal((d, E)) / d**0.5
        token_BxS = np.arange(np.prod(shape)).reshape(shape)
        x_BxSxd[..., :n_sets] = np.eye(n_sets)[token_BxS % n_sets]
        router_dxE[:n_sets] = 20 * np.repeat(np.eye(n_sets), k, axis=1)
    else:
        router_dxE = random.standard_normal((d, E)) / d**0.5
        x_BxSxd[..., 0] = 1
        router_dxE[0] = -skew * np.log(np.arange(E) + 1)
    return jnp.asarray(x_BxSxd, c.model.compute_dtype), jnp.asarray(router_dxE, jnp.float32)


def alone() -> sharding.Layout:
    return sharding.Layout(sharding.make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))


def compiled(module: nnx.Module, x_BxSxd: jax.Array, **values: jax.Array) -> tuple[Step, Callable[[], dict]]:
    """(a step that gives the gradients of inputs and parameters, the layer's statistics)."""
    graph, state = nnx.split(module)
    params = nnx.to_pure_dict(state) | values
    d_y_BxSxd = jax.random.normal(jax.random.key(2), x_BxSxd.shape, x_BxSxd.dtype)

    def loss(params, x_BxSxd):
        nnx.replace_by_pure_dict(state, params)
        out = nnx.merge(graph, state)(x_BxSxd)
        y_BxSxd, seen = out if isinstance(out, tuple) else (out, {"balance": 0.0})
        return jnp.sum((y_BxSxd * d_y_BxSxd).astype(jnp.float32)) + 0.01 * seen["balance"], seen

    both = jax.jit(jax.value_and_grad(loss, argnums=(0, 1), has_aux=True))
    return lambda: jax.block_until_ready(both(params, x_BxSxd)), lambda: jax.device_get(both(params, x_BxSxd)[0][1])


def dense_step(c: Config, x_BxSxd: jax.Array) -> Step:
    return compiled(FeedForward(c.model, alone(), jax.random.key(0)), x_BxSxd)[0]


def moe_step(c: Config, dispatch: str, x_BxSxd: jax.Array, router_dxE: jax.Array) -> tuple[Step, dict]:
    c = dataclasses.replace(c, moe=dataclasses.replace(c.moe, dispatch=dispatch))
    step, seen = compiled(MoeLayer(c, alone(), jax.random.key(0)), x_BxSxd, router_dxE=router_dxE)
    return step, seen()


def find_peer(args: argparse.Namespace) -> tuple[Callable[..., Step] | None, str]:
    """(a function that makes the peer's step, "") or (None, why there is none)."""
    if args.activation != "swiglu":
        return None, "no peer: transformers' experts are gated; --activation=swiglu compares with them"
    try:
        import torch
        from transformers import OlmoeConfig
        from transformers.models.olmoe.modeling_olmoe import OlmoeSparseMoeBlock
    except ImportError as e:
        return None, f"no peer: {e.name} is not installed; pip install '.[bench]'"
    place = torch.device("cuda" if torch.cuda.is_available() else "cpu")

    def peer(c: Config, x_BxSxd: jax.Array, router_dxE: jax.Array) -> Step:
        config = OlmoeConfig(
            hidden_size=c.model.d_model, intermediate_size=c.moe.d_expert, num_experts=c.moe.n_experts,
            num_experts_per_tok=c.moe.top_k, norm_topk_prob=False, experts_implementation="grouped_mm",
        )  # fmt: skip
        dtype = getattr(torch, c.model.compute_dtype)
        torch.manual_seed(0)
        block = OlmoeSparseMoeBlock(config).to(place, dtype)
        with torch.no_grad():
            for name, parameter in block.named_parameters():
                values = torch.tensor(np.asarray(router_dxE).T) if name == "gate.weight" else 0.02 * torch.randn(
                    parameter.shape
                )  # fmt: skip
                parameter.copy_(values)
        x = torch.tensor(np.asarray(x_BxSxd, np.float32)).to(place, dtype).requires_grad_()
        d_y = torch.randn(x.shape).to(place, dtype)

        def step():
            out = block(x)
            y = out[0] if isinstance(out, tuple) else out
            torch.autograd.grad((y * d_y).sum(), [x, *block.parameters()])
            if place.type == "cuda":
                torch.cuda.synchronize()

        return step

    return peer, ""


def interleaved(steps: dict[str, Step], repeats: int) -> dict[str, list[float]]:
    """Seconds of each step, run in turn; the first round compiles and is not counted."""
    seconds = {name: [] for name in steps}
    for step in steps.values():
        step()
    for _ in range(repeats):
        for name, step in steps.items():
            began = time.perf_counter()
            step()
            seconds[name].append(time.perf_counter() - began)
    return seconds


class Columns:
    """The table's columns: milliseconds, as multiples of the dense twin's and the peer's, share of the chip's rate."""

    def __init__(self, args: argparse.Namespace, peak_flops: float | None, dispatches: list[str], peer: bool):
        matrices = 3 if args.activation == "swiglu" else 2
        self._flops = 3 * 2 * args.tokens * args.d_model * 4 * args.d_model * matrices
        self._peak_flops = peak_flops
        self.formats = {"experts × k": "", "routing": ""}
        for name in ("dense", *dispatches, *(["peer"] if peer else [])):
            self.formats[f"{name} ms"] = ".1f"
            if name != "dense":
                self.formats[f"{name} ÷ dense"] = ".2f"
            if peer and name in dispatches:
                self.formats[f"peer ÷ {name}"] = ".2f"
            if peak_flops:
                self.formats[f"{name} of peak"] = ".0%"
            if name in dispatches and name != "dropless":
                self.formats[f"{name} dropped"] = ".1%"
        self.formats["max / mean load"] = ".1f"

    def row(self, shape: str, routing: str, seconds: dict[str, list[float]], seen: dict[str, dict]) -> dict[str, Any]:
        """A row, from the seconds of each step, round by round, and what the layers saw."""
        row = {"experts × k": shape, "routing": routing}
        for name, own in seconds.items():
            middle = statistics.median(own)
            row |= {f"{name} ms": 1e3 * middle, f"{name} ÷ dense": ratio(own, seconds["dense"])}
            if "peer" in seconds:
                row[f"peer ÷ {name}"] = ratio(seconds["peer"], own)
            if self._peak_flops:
                row[f"{name} of peak"] = self._flops / middle / self._peak_flops
            if name in seen:
                row[f"{name} dropped"] = float(seen[name]["dropped_fraction"])
        row["max / mean load"] = float(max_over_mean(next(iter(seen.values()))["load_E"]))
        return {name: row.get(name) for name in self.formats}


def ratio(a: list[float], b: list[float]) -> float:
    """The median over rounds."""
    return statistics.median(x / y for x, y in zip(a, b, strict=True))


if __name__ == "__main__":
    main()
