"""The models whose train steps are timed."""

import dataclasses

from moe_jax.config import config_file, counts
from moe_jax.config.schema import Config, MeshConfig

CAPACITY = 1.25
LEARNING_RATE, BETAS, EPS, WEIGHT_DECAY, CLIP_NORM = 1e-4, (0.9, 0.95), 1e-8, 0.1, 1.0
BALANCE = 0.01  # weight of the load-balancing loss


@dataclasses.dataclass(frozen=True)
class Shape:
    """A decoder with SwiGLU experts, RoPE, QK-norm and RMSNorm, and the tokens of a step."""

    n_layers: int
    d_model: int
    n_heads: int
    n_experts: int
    d_expert: int
    top_k: int
    vocab_size: int
    sequences: int
    positions: int

    @property
    def tokens(self) -> int:
        """Tokens of a step."""
        return self.sequences * self.positions

    def __str__(self) -> str:
        return (
            f"{self.n_layers} layers, d {self.d_model}, {self.n_heads} heads, {self.n_experts} experts × "
            f"{self.d_expert}, top-{self.top_k}, vocabulary {self.vocab_size:,}, batch {self.sequences} × "
            f"{self.positions}"
        )

    def config(self, dispatch: str) -> Config:
        """The run's config; with the dispatch `dense` that of the twin without experts, of the same active width."""
        overrides = {
            "model.d_model": self.d_model, "model.n_layers": self.n_layers, "model.n_heads": self.n_heads,
            "model.d_ff": self.top_k * self.d_expert, "model.activation": "swiglu", "model.norm": "rmsnorm",
            "model.positions": "rope", "model.qk_norm": "head", "model.vocab_size": self.vocab_size,
            "data.sequence_length": self.positions, "train.batch_sequences": self.sequences,
            "train.tokens": 10_000 * self.tokens, "optim.learning_rate": LEARNING_RATE, "optim.betas": str(BETAS),
            "optim.eps": EPS, "optim.weight_decay": WEIGHT_DECAY, "optim.clip_norm": CLIP_NORM,
        }  # fmt: skip
        if dispatch == "dense":
            overrides["moe"] = None
        else:
            overrides |= {
                "moe.expansion_rate": self.n_experts / self.top_k, "moe.granularity": float(self.top_k),
                "moe.capacity_factor": CAPACITY, "moe.load_balance_loss_weight": BALANCE, "moe.dispatch": dispatch,
            }  # fmt: skip
        flags = [f"--config.{name}={value}" for name, value in overrides.items()]
        return config_file.load(["--config=configs/common.py", *flags]).config

    @property
    def flops(self) -> float:
        """Arithmetic that a step has to do (moe_jax/flops.py), without what a capacity above 1 adds."""
        config = self.config("slots")
        return counts.count_flops(config, self.vocab_size).train_flops / config.steps

    def alone(self):
        """The layout of one device."""
        import jax

        from moe_jax.model import sharding

        return sharding.Layout(sharding.make_mesh(MeshConfig(1, 1, 1), jax.devices()[:1]))


SHAPES = {
    "small": Shape(2, 128, 4, 32, 64, 4, 4096, 8, 128),
    "mid": Shape(4, 256, 4, 64, 128, 8, 8192, 8, 256),
    "large": Shape(6, 512, 8, 64, 256, 8, 8192, 4, 512),
}
