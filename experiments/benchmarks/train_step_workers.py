"""The train steps that train_step.py times, each in a process of its own.

    python -m experiments.benchmarks.train_step_workers WHAT SHAPE

WHAT is slots, dropless, dense (ours) or peer. The process writes a JSON line once it has compiled and warmed up, and
one more for each line that it reads: the seconds of that many steps, {"seconds": …}, or, where the line is 0, of one
product of two square matrices. Every batch is new, of uniform random tokens, the same for all.
"""

import json
import sys
import time
from collections.abc import Callable, Iterator

import numpy as np

from experiments.benchmarks.train_step_shapes import (
    BALANCE,
    BETAS,
    CLIP_NORM,
    EPS,
    LEARNING_RATE,
    SHAPES,
    WEIGHT_DECAY,
    Shape,
)
from moe_jax.cli import malloc

Steps = Callable[[int], dict]  # trains so many steps, or multiplies for 0; what a row of the table says of them
PRODUCT_SIDE = 2048  # of the matrices whose product measures the machine's arithmetic


def main() -> None:
    what, shape = sys.argv[1], SHAPES[sys.argv[2]]
    if what != "peer":  # as moe-jax train does; the peer is no faster with them
        malloc.start_again()
    train = peer(shape) if what == "peer" else ours(shape, what)
    say(train(2))
    for line in sys.stdin:
        began = time.perf_counter()
        said = train(int(line))
        say(said | {"seconds": time.perf_counter() - began})


def say(what: dict) -> None:
    print(json.dumps(what), flush=True)


def batches(shape: Shape) -> Iterator[np.ndarray]:
    """windows_Bx(S+1) of uniform random tokens, int32."""
    random = np.random.default_rng(0)
    while True:
        yield random.integers(0, shape.vocab_size, (shape.sequences, shape.positions + 1)).astype(np.int32)


def ours(shape: Shape, dispatch: str) -> Steps:
    """moe_jax's step; `dense` is the twin without experts."""
    import jax

    from moe_jax.training import optimizer
    from moe_jax.training.step import Trainer

    config = shape.config(dispatch)
    trainer = Trainer(config, shape.vocab_size, shape.alone())
    state, schedule, given = trainer.init(0), optimizer.schedule_of(config), batches(shape)
    square, product = jax.numpy.ones((PRODUCT_SIDE, PRODUCT_SIDE)), jax.jit(jax.numpy.matmul)

    def train(steps: int) -> dict:
        nonlocal state
        if not steps:
            jax.block_until_ready(product(square, square))
            return {}
        for _ in range(steps):
            windows = jax.device_put(next(given)[None], trainer.batch_sharding)
            state, metrics = trainer.step(state, windows, schedule)
        seen = {name: float(metrics[name]) for name in ("loss", "dropped_fraction") if name in metrics}
        jax.block_until_ready(state)
        return seen

    return train


def peer(shape: Shape) -> Steps:
    """Hugging Face transformers' OLMoE on torch: grouped_mm experts, fused AdamW, router logits on."""
    import torch
    from transformers import OlmoeConfig, OlmoeForCausalLM

    torch.manual_seed(0)
    model = OlmoeForCausalLM(
        OlmoeConfig(
            vocab_size=shape.vocab_size, hidden_size=shape.d_model, intermediate_size=shape.d_expert,
            num_hidden_layers=shape.n_layers, num_attention_heads=shape.n_heads, num_experts=shape.n_experts,
            num_experts_per_tok=shape.top_k, max_position_embeddings=shape.positions, norm_topk_prob=False,
            output_router_logits=True, router_aux_loss_coef=BALANCE, experts_implementation="grouped_mm",
            use_cache=False, pad_token_id=None, eos_token_id=None, bos_token_id=None,
        )
    )  # fmt: skip
    model.train()
    adamw = torch.optim.AdamW(
        model.parameters(), lr=LEARNING_RATE, betas=BETAS, eps=EPS, weight_decay=WEIGHT_DECAY, fused=True
    )
    given, square = batches(shape), torch.ones((PRODUCT_SIDE, PRODUCT_SIDE))

    def train(steps: int) -> dict:
        if not steps:
            torch.mm(square, square)
            return {}
        for _ in range(steps):
            windows = torch.from_numpy(next(given)[:, :-1].astype(np.int64))
            loss = model(input_ids=windows, labels=windows).loss
            adamw.zero_grad()
            loss.backward()
            torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)
            adamw.step()
        return {"loss": loss.item()}

    return train


if __name__ == "__main__":
    main()
