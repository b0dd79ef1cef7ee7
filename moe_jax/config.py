"""What a run is made of: frozen dataclasses, built once from a ConfigDict and checked while they are built.

Every field is given by the config file (`configs/common.py` lists them all with their values); there are no defaults
here, so nothing is decided where a reader of the config cannot see it. Values that follow from others (d_ff, n_experts,
top_k, d_expert) may be left None in the config and are numbers here.
"""

import dataclasses
import math
import typing
from typing import Any

from moe_jax.errors import UserError


def refuse(field: str, value: Any, rule: str) -> typing.NoReturn:
    """Raises the one sentence of a bad config value."""
    raise UserError(f"config.{field} = {value!r}: {rule}")


def _positive(group: str, owner: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(owner, field)
        if value is not None and not value > 0:
            refuse(f"{group}.{field}", value, "must be above 0")


def _not_negative(group: str, owner: Any, *fields: str) -> None:
    for field in fields:
        value = getattr(owner, field)
        if value is not None and not value >= 0:
            refuse(f"{group}.{field}", value, "must not be below 0")


def _one_of(field: str, value: Any, *choices: Any) -> None:
    if value not in choices:
        refuse(field, value, f"must be one of {', '.join(map(repr, choices))}")


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The decoder; symbols as in the papers (design: d, n_blocks, d_ff)."""

    d_model: int
    n_blocks: int
    n_heads: int
    d_ff: int | None  # width of the dense feed-forward; None: 4 d_model
    activation: str
    norm: str
    final_norm: bool
    positions: str
    qk_norm: bool
    ff_bias: bool  # biases in the dense feed-forward; experts never have any
    attention_float32: bool  # scores, softmax and their use in float32, whatever the compute dtype
    init_scale: float  # std = sqrt(init_scale / fan_in), cut at ±2 init_scale
    vocabulary_size: int | None  # None: the store's
    compute_dtype: str
    remat: str
    logits_positions: int  # positions of every sequence whose logits are held at once

    def __post_init__(self):
        _positive(
            "model", self, "d_model", "n_blocks", "n_heads", "d_ff", "init_scale", "vocabulary_size", "logits_positions"
        )
        _one_of("model.activation", self.activation, "relu", "gelu", "swiglu")
        _one_of("model.norm", self.norm, "layernorm", "rmsnorm")
        _one_of("model.positions", self.positions, "learned", "rope")
        _one_of("model.compute_dtype", self.compute_dtype, "float32", "bfloat16", "float64")
        _one_of("model.remat", self.remat, "none", "block", "dispatch")
        if self.ff_bias and self.gated:
            refuse("model.ff_bias", self.ff_bias, f"a gated feed-forward ({self.activation}) has no biases here")
        if self.d_model % self.n_heads:
            refuse("model.n_heads", self.n_heads, f"must divide model.d_model = {self.d_model}")
        if self.positions == "rope" and self.d_model // self.n_heads % 2:
            refuse("model.n_heads", self.n_heads, "rope turns pairs, so d_model / n_heads must be even")
        if self.d_ff is None:
            object.__setattr__(self, "d_ff", 4 * self.d_model)

    @property
    def gated(self) -> bool:
        return self.activation == "swiglu"

    @property
    def ff_matrices(self) -> int:
        """Matrices of a feed-forward or an expert: m of design §1."""
        return 3 if self.gated else 2


@dataclasses.dataclass(frozen=True)
class MoeConfig:
    """The MoE layer that replaces every feed-forward (design §1: E, G, K and what follows from them)."""

    expansion_rate: float | None  # E
    granularity: float | None  # G
    active_rate: float | None  # K
    n_experts: int | None
    top_k: int | None
    d_expert: int | None
    router: str
    softmax: str
    group_sequences: int
    capacity_factor: float
    load_balance_weight: float
    z_weight: float
    bias_update_rate: float
    output_norm: bool
    batch_prioritised: bool
    shared_experts: int
    dispatch: str

    def __post_init__(self):
        _positive(
            "moe", self, "expansion_rate", "granularity", "active_rate", "n_experts", "top_k", "d_expert",
            "group_sequences", "capacity_factor",
        )  # fmt: skip
        _not_negative("moe", self, "load_balance_weight", "z_weight", "bias_update_rate", "shared_experts")
        _one_of("moe.router", self.router, "token_choice", "expert_choice")
        _one_of("moe.dispatch", self.dispatch, "slots", "dropless", "dense")
        if self.router == "token_choice":
            _one_of("moe.softmax", self.softmax, "before_top_k", "after_top_k")
        else:
            _one_of("moe.softmax", self.softmax, "over_experts", "over_tokens")
            for field in ("load_balance_weight", "bias_update_rate"):
                if value := getattr(self, field):
                    refuse(f"moe.{field}", value, "expert_choice is balanced as it is; set 0")
            if self.dispatch == "dropless":
                refuse("moe.dispatch", self.dispatch, "expert_choice fills every slot as it is; use slots")
        if self.batch_prioritised and (self.router == "expert_choice" or self.dispatch == "dropless"):
            refuse(
                "moe.batch_prioritised",
                self.batch_prioritised,
                f"says what is dropped, and nothing is with router {self.router} and dispatch {self.dispatch}",
            )

    @property
    def sparsity(self) -> float:
        return 1 - self.active_rate / self.expansion_rate


def _complete_moe(moe: MoeConfig, d_ff: int) -> MoeConfig:
    """Both forms, (E, G, K) and (n_experts, top_k, d_expert), from whichever is given; inconsistent ones are
    refused."""
    E, G, K = moe.expansion_rate, moe.granularity, moe.active_rate
    n, k, w = moe.n_experts, moe.top_k, moe.d_expert
    if G is None and w is None:
        refuse("moe.granularity", G, "give granularity or d_expert")
    if G is not None and (d_ff % G or d_ff // G < 1):
        refuse("moe.granularity", G, f"must divide model.d_ff = {d_ff}")
    w_from_G = None if G is None else int(d_ff // G)
    if w is not None and w_from_G is not None and w != w_from_G:
        refuse("moe.d_expert", w, f"but d_ff / granularity = {d_ff} / {G:g} = {w_from_G}; give one of the two")
    w = w_from_G if w is None else w
    G = d_ff / w if G is None else G

    def pair(count, rate, count_name, rate_name):
        """An expert count and its rate: count = rate · G."""
        if count is None and rate is None:
            refuse(f"moe.{rate_name}", None, f"give {rate_name} or {count_name}")
        if rate is not None:
            product = rate * G
            if not math.isclose(product, round(product), rel_tol=1e-9) or round(product) < 1:
                refuse(
                    f"moe.{rate_name}",
                    rate,
                    f"times granularity {G:g} must be a whole number of experts, not {product:g}",
                )
            if count is not None and count != round(product):
                refuse(
                    f"moe.{count_name}",
                    count,
                    f"but {rate_name} · granularity = {rate:g} · {G:g} = {product:g}; give one of the two",
                )
            return round(product), rate
        return count, count / G

    n, E = pair(n, E, "n_experts", "expansion_rate")
    k, K = pair(k, K, "top_k", "active_rate")
    if k > n:
        refuse("moe.top_k", k, f"a token cannot choose more experts than there are, n_experts = {n}")
    moe = dataclasses.replace(
        moe, expansion_rate=tidy(E), granularity=tidy(G), active_rate=tidy(K), n_experts=n, top_k=k, d_expert=w
    )
    if moe.softmax == "after_top_k" and k == 1:
        refuse(
            "moe.softmax",
            moe.softmax,
            "with top_k = 1 its weight is always 1 and the router gets no gradient; use before_top_k",
        )
    return moe


def tidy(x: float) -> float | int:
    """4.0 -> 4, so that one value has one spelling in hashes and tables."""
    return round(x) if math.isclose(x, round(x), rel_tol=1e-9) else x


@dataclasses.dataclass(frozen=True)
class DataConfig:
    store: str  # folder or gs://
    mixture: str
    vocabulary: str
    sequence_length: int
    repeat: bool  # allow more tokens than the store holds
    windows: str
    mask_documents: bool  # attention does not cross document ends
    cache: str | None  # local folder that each host copies the store to; None: it is read where it is

    def __post_init__(self):
        _one_of("data.windows", self.windows, "packed", "random")
        _positive("data", self, "sequence_length")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    tokens: int  # D asked for; steps = ceil(tokens / batch tokens)
    batch_sequences: int
    microbatches: int
    loss_window: int  # steps that train_loss averages over
    log_every_steps: int
    log_layers: bool

    def __post_init__(self):
        _positive("train", self, "tokens", "batch_sequences", "microbatches", "loss_window", "log_every_steps")
        if self.batch_sequences % self.microbatches:
            refuse(
                "train.microbatches", self.microbatches, f"must divide train.batch_sequences = {self.batch_sequences}"
            )


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    name: str
    learning_rate: float
    betas: tuple[float, float]
    eps: float
    weight_decay: float
    weight_decay_by_lr: bool
    clip_norm: float | None
    schedule: str
    warmup_tokens: int | None
    warmup_fraction: float | None
    decay_fraction: float | None  # wsd: share of the steps over which the rate falls
    final_fraction: float

    def __post_init__(self):
        _one_of("optim.name", self.name, "adamw")
        _one_of("optim.schedule", self.schedule, "cosine", "wsd")
        _positive("optim", self, "learning_rate", "eps", "clip_norm")
        _not_negative("optim", self, "weight_decay", "warmup_tokens", "warmup_fraction", "final_fraction")
        if len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas):
            refuse("optim.betas", self.betas, "must be two numbers in [0, 1)")
        if (self.warmup_tokens is None) == (self.warmup_fraction is None):
            refuse(
                "optim.warmup_tokens",
                self.warmup_tokens,
                f"give it or warmup_fraction = {self.warmup_fraction}, not both",
            )
        if self.warmup_fraction is not None and self.warmup_fraction > 1:
            refuse("optim.warmup_fraction", self.warmup_fraction, "must be at most 1")
        self._check_wsd()

    def _check_wsd(self) -> None:
        if self.schedule != "wsd":
            if self.decay_fraction is not None:
                refuse("optim.decay_fraction", self.decay_fraction, f"{self.schedule} has none; only wsd has")
            return
        if self.decay_fraction is None or not 0 < self.decay_fraction <= 1:
            refuse("optim.decay_fraction", self.decay_fraction, "wsd needs a share of the steps, above 0 and at most 1")
        if self.warmup_tokens is None:
            refuse(
                "optim.warmup_tokens",
                None,
                "wsd warms up over tokens, the same for every D; give them, and warmup_fraction=None",
            )


@dataclasses.dataclass(frozen=True)
class GuardConfig:
    """Which batches are left out (moe_jax/guard.py)."""

    factor: float | None  # standard deviations above the mean of the gradient norms before; None: none is left out
    window: int  # how many norms before

    def __post_init__(self):
        _positive("guard", self, "factor", "window")
        if self.window < 8:
            refuse("guard.window", self.window, "must be at least 8: of fewer norms the first limit is the last")


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    sequences: int  # held-out windows, in store order
    every_steps: int | None  # None: at the end only

    def __post_init__(self):
        _positive("eval", self, "sequences", "every_steps")


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    every_steps: int | None
    every_minutes: float | None
    keep: int

    def __post_init__(self):
        _positive("checkpoint", self, "every_steps", "every_minutes", "keep")


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """Which steps the profiler traces."""

    first_step: int | None  # None: none
    steps: int

    def __post_init__(self):
        _not_negative("profile", self, "first_step")
        _positive("profile", self, "steps")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; one may be -1, what is left."""

    replica: int
    data: int
    expert: int

    def __post_init__(self):
        sizes = {axis.name: getattr(self, axis.name) for axis in dataclasses.fields(self)}
        for axis, size in sizes.items():
            if size < 1 and size != -1:
                refuse(f"mesh.{axis}", size, "must be above 0, or -1 for what is left")
        if list(sizes.values()).count(-1) > 1:
            refuse("mesh", sizes, "only one axis may be -1")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    pack: int  # runs that train together in one program; 1: each alone

    def __post_init__(self):
        _positive("sweep", self, "pack")


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. `moe` is None for the dense twin."""

    model: ModelConfig
    moe: MoeConfig | None
    data: DataConfig
    train: TrainConfig
    optim: OptimConfig
    guard: GuardConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig
    profile: ProfileConfig
    sweep: SweepConfig
    mesh: MeshConfig
    seed: int
    tensorboard: bool
    wandb: str | None  # project of Weights & Biases; None: none

    def __post_init__(self):
        if self.sweep.pack > 1 and (self.profile.first_step is not None or self.wandb is not None):
            refuse("sweep.pack", self.sweep.pack, "packed runs are neither profiled nor sent to Weights & Biases")
        if self.sweep.pack > 1 and self.checkpoint.keep == 1:
            refuse(
                "checkpoint.keep", 1,
                "packed runs go on at the newest step that all have saved, which takes at least 2 of each",
            )  # fmt: skip
        if self.optim.schedule == "wsd" and self.warmup_steps > self.decay_start:
            refuse(
                "optim.warmup_tokens", self.optim.warmup_tokens,
                f"are {self.warmup_steps} steps, but of the {self.steps} steps of this D the decay begins after "
                f"{self.decay_start}",
            )  # fmt: skip
        if self.moe is None:
            return
        moe = _complete_moe(self.moe, self.model.d_ff)
        object.__setattr__(self, "moe", moe)
        if self.mesh.expert > 0 and moe.n_experts % self.mesh.expert:
            refuse("mesh.expert", self.mesh.expert, f"must divide the {moe.n_experts} experts")
        self._check_groups(moe)

    def _check_groups(self, moe: MoeConfig) -> None:
        group = moe.group_sequences
        part = self.train.batch_sequences // self.train.microbatches
        if part % group:
            refuse(
                "moe.group_sequences",
                group,
                f"must divide the {part} sequences of a microbatch (batch_sequences / microbatches)",
            )
        if self.eval.sequences < group:
            refuse("eval.sequences", self.eval.sequences, f"must hold at least one routing group of {group} sequences")
        if moe.router == "expert_choice":
            taken = group * moe.active_rate / moe.expansion_rate
            if not math.isclose(taken, round(taken), rel_tol=1e-9) or round(taken) < 1:
                refuse(
                    "moe.group_sequences", group,
                    f"an expert takes group · K / E = {group} · {moe.active_rate:g} / {moe.expansion_rate:g} = "
                    f"{taken:g} sequences at a position, which must be a whole number of at least 1",
                )  # fmt: skip
        elif (
            moe.dispatch != "dropless"
            and moe.capacity_factor * group * self.data.sequence_length * moe.top_k < moe.n_experts
        ):
            refuse(
                "moe.capacity_factor", moe.capacity_factor,
                f"gives {group * self.data.sequence_length} tokens · top_k {moe.top_k} / {moe.n_experts} experts "
                "less than one slot an expert; lengthen the group or raise the factor",
            )  # fmt: skip

    @property
    def batch_tokens(self) -> int:
        return self.train.batch_sequences * self.data.sequence_length

    @property
    def steps(self) -> int:
        return math.ceil(self.train.tokens / self.batch_tokens)

    @property
    def warmup_steps(self) -> int:
        if self.optim.warmup_tokens is not None:
            return math.ceil(self.optim.warmup_tokens / self.batch_tokens)
        return round(self.optim.warmup_fraction * self.steps)

    @property
    def decay_start(self) -> int:
        """Steps before the rate begins to fall: the warm-up, or with wsd all but the last decay_fraction, which is
        rounded to the nearest whole step and at least one. There a branch leaves its trunk."""
        if self.optim.schedule == "wsd":
            return self.steps - max(1, round(self.optim.decay_fraction * self.steps))
        return self.warmup_steps
