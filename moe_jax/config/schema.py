"""What a run is made of: frozen dataclasses, built once from a ConfigDict and checked while they are built.

Every field is given by the config file (`configs/common.py` lists them all with their values); there are no defaults
here, so nothing is decided where a reader of the config cannot see it. Values that follow from others (d_ff, n_experts,
top_k, d_expert) may be left None in the config and are numbers here.

Every field says what it `enters` (enters.py defines the words): CONSTANT, of the result and of the compiled step;
VALUE, of the result; PROGRAM, of the compiled step; HOW, of neither.
"""

import dataclasses
import math

from moe_jax.config import held_out_stores
from moe_jax.config.checks import is_whole, not_negative, one_of, positive, refuse
from moe_jax.config.enters import CONSTANT, HOW, PACK, PROGRAM, RESULT, TRUNK, VALUE, enters
from moe_jax.config.moe import DISPATCHES, MoeConfig
from moe_jax.files import refuse_foreign


@dataclasses.dataclass(frozen=True)
class ModelConfig:
    """The decoder without its feed-forwards' experts; symbols as in the papers."""

    d_model: int = enters(CONSTANT)
    n_layers: int = enters(CONSTANT)
    n_heads: int = enters(CONSTANT)
    n_kv_heads: int | None = enters(CONSTANT)  # heads of keys and values; None: n_heads
    head_dim: int | None = enters(CONSTANT)  # width of a head; None: d_model / n_heads
    d_ff: int | None = enters(CONSTANT)  # width of the dense feed-forward; None: 4 d_model
    activation: str = enters(CONSTANT)
    norm: str = enters(CONSTANT)
    norm_eps: float = enters(CONSTANT)  # what every norm adds to the mean square
    final_norm: bool = enters(CONSTANT)
    positions: str = enters(CONSTANT)
    rope_theta: float = enters(CONSTANT)  # base of the rotary positions' frequencies
    qk_norm: str = enters(CONSTANT)  # RMSNorm of queries and keys: none, of each head, or of all heads together
    tied_embeddings: bool = enters(CONSTANT)  # the unembedding is the table of tokens
    ff_bias: bool = enters(CONSTANT)  # biases in the dense feed-forward; experts never have any
    attention_float32: bool = enters(CONSTANT)  # scores, softmax and their use in float32, whatever the compute dtype
    init_scale: float = enters(CONSTANT)  # std = sqrt(init_scale / fan_in), cut at ±2 init_scale
    readout_init_scale: float | None = enters(CONSTANT)  # of unembedding and router; None: init_scale
    vocab_size: int | None = enters(CONSTANT)  # None: the store's
    compute_dtype: str = enters(CONSTANT)
    attention: str = enters(PROGRAM)  # auto, xla or flash: what computes scores and their use
    remat: str = enters(PROGRAM)
    logits_positions: int = enters(PROGRAM)  # positions of every sequence whose logits are held at once

    def __post_init__(self):
        positive(
            "model", self, "d_model", "n_layers", "n_heads", "n_kv_heads", "head_dim", "d_ff", "norm_eps", "rope_theta",
            "init_scale", "readout_init_scale", "vocab_size", "logits_positions",
        )  # fmt: skip
        one_of("model.activation", self.activation, "relu", "gelu", "swiglu")
        one_of("model.norm", self.norm, "layernorm", "rmsnorm")
        one_of("model.positions", self.positions, "learned", "rope")
        one_of("model.qk_norm", self.qk_norm, "none", "head", "full")
        one_of("model.compute_dtype", self.compute_dtype, "float32", "bfloat16", "float64")
        one_of("model.attention", self.attention, "auto", "xla", "flash")
        one_of("model.remat", self.remat, "none", "block", "dispatch")
        if self.ff_bias and self.gated:
            refuse("model.ff_bias", self.ff_bias, f"a gated feed-forward ({self.activation}) has no biases here")
        self._complete_heads()
        if self.d_ff is None:
            object.__setattr__(self, "d_ff", 4 * self.d_model)
        if self.readout_init_scale is None:
            object.__setattr__(self, "readout_init_scale", self.init_scale)
        elif self.tied_embeddings and self.readout_init_scale != self.init_scale:
            refuse(
                "model.readout_init_scale", self.readout_init_scale,
                "the unembedding is the table of tokens (tied_embeddings), which has init_scale; leave it None",
            )  # fmt: skip

    def _complete_heads(self) -> None:
        """Fills in n_kv_heads and head_dim."""
        given = self.head_dim is not None
        if not given and self.d_model % self.n_heads:
            refuse(
                "model.n_heads", self.n_heads,
                f"must divide model.d_model = {self.d_model}, unless model.head_dim is given",
            )  # fmt: skip
        head_dim = self.head_dim if given else self.d_model // self.n_heads
        if self.positions == "rope" and head_dim % 2:
            if given:
                refuse("model.head_dim", head_dim, "rope turns pairs, so it must be even")
            refuse("model.n_heads", self.n_heads, "rope turns pairs, so d_model / n_heads must be even")
        n_kv_heads = self.n_heads if self.n_kv_heads is None else self.n_kv_heads
        if self.n_heads % n_kv_heads:
            refuse("model.n_kv_heads", n_kv_heads, f"must divide model.n_heads = {self.n_heads}")
        object.__setattr__(self, "head_dim", head_dim)
        object.__setattr__(self, "n_kv_heads", n_kv_heads)

    @property
    def gated(self) -> bool:
        """Whether a feed-forward multiplies its activations by a gate, a third matrix."""
        return self.activation == "swiglu"

    @property
    def attention_width(self) -> int:
        """H · Dh, numbers of all heads' queries at one position; d_model where head_dim is not given."""
        return self.n_heads * self.head_dim

    @property
    def ff_matrices(self) -> int:
        """m, the matrices of a feed-forward or an expert: 3 where it is gated, else 2."""
        return 3 if self.gated else 2


@dataclasses.dataclass(frozen=True)
class DataConfig:
    """Which tokens are read, and how. The store's SHA-256, which is part of the config hash, identifies them."""

    store: str = enters(HOW)  # folder or gs://
    mixture: str = enters(HOW)
    vocabulary: str = enters(HOW)
    sequence_length: int = enters(CONSTANT)
    repeat: bool = enters(VALUE)  # allow more tokens than the store holds
    windows: str = enters(VALUE)
    mask_documents: bool = enters(CONSTANT)  # attention does not cross document ends
    cache: str | None = enters(HOW)  # local folder that each host copies the store to; None: it is read where it is

    def __post_init__(self):
        one_of("data.windows", self.windows, "packed", "random")
        positive("data", self, "sequence_length")
        for field in ("store", "cache"):
            refuse_foreign(getattr(self, field) or "", f"config.data.{field}")


@dataclasses.dataclass(frozen=True)
class TrainConfig:
    """The length of training, and its batches."""

    # D asked for; steps = ceil(tokens / batch tokens). Branches of one trunk differ in it.
    tokens: int = enters(RESULT | PACK)
    batch_sequences: int = enters(CONSTANT)
    microbatches: int = enters(PROGRAM)
    loss_average_steps: int = enters(CONSTANT)  # steps that train_loss averages over
    init_from: str | None = enters(HOW)  # W/runs/NAME, W/runs/NAME@STEP or an import; None: weights of the seed
    init_sha256: str | None = enters(VALUE)  # of that checkpoint (sweep/initial_weights.py); None: of what is there
    log_every_steps: int = enters(HOW)
    log_layers: bool = enters(PROGRAM)

    def __post_init__(self):
        positive("train", self, "tokens", "batch_sequences", "microbatches", "loss_average_steps", "log_every_steps")
        if self.batch_sequences % self.microbatches:
            refuse(
                "train.microbatches", self.microbatches, f"must divide train.batch_sequences = {self.batch_sequences}"
            )
        if self.init_sha256 is not None and self.init_from is None:
            refuse("train.init_sha256", self.init_sha256, "is the digest of train.init_from; give that too")
        refuse_foreign(self.init_from or "", "config.train.init_from")
        if self.init_from == "":
            refuse("train.init_from", self.init_from, "must name the folder of a run, or be None")


# The numbers that each optimizer needs, with their usual values.
_OPTIMIZERS = {
    "adamw": {"betas": "(0.9, 0.95)", "eps": "1e-8"},
    "muon": {"betas": "(0.9, 0.95)", "eps": "1e-8", "momentum": "0.95"},  # the first two are of its AdamW
    "lion": {"betas": "(0.9, 0.99)"},
    "adafactor": {},
}


@dataclasses.dataclass(frozen=True)
class OptimConfig:
    """The optimizer and its learning rate's schedule."""

    name: str = enters(CONSTANT)
    learning_rate: float = enters(RESULT | TRUNK)  # runs of one pack differ in it
    betas: tuple[float, float] | None = enters(CONSTANT)
    eps: float | None = enters(CONSTANT)
    momentum: float | None = enters(CONSTANT)
    matrix_rate: float = enters(CONSTANT)  # of matrices that multiply hidden states, a factor of learning_rate
    weight_decay: float = enters(CONSTANT)
    weight_decay_by_lr: bool = enters(CONSTANT)
    clip_norm: float | None = enters(CONSTANT)
    schedule: str = enters(CONSTANT)
    warmup_tokens: int | None = enters(VALUE)
    warmup_fraction: float | None = enters(VALUE)
    decay_fraction: float | None = enters(VALUE)  # wsd: share of the steps over which the rate falls
    final_fraction: float = enters(CONSTANT)

    def __post_init__(self):
        one_of("optim.name", self.name, *_OPTIMIZERS)
        one_of("optim.schedule", self.schedule, "cosine", "wsd")
        positive("optim", self, "learning_rate", "eps", "clip_norm", "matrix_rate")
        not_negative("optim", self, "weight_decay", "warmup_tokens", "warmup_fraction", "final_fraction")
        self._check_numbers_of_name()
        if (self.warmup_tokens is None) == (self.warmup_fraction is None):
            refuse(
                "optim.warmup_tokens",
                self.warmup_tokens,
                f"give it or warmup_fraction = {self.warmup_fraction}, not both",
            )
        if self.warmup_fraction is not None and self.warmup_fraction > 1:
            refuse("optim.warmup_fraction", self.warmup_fraction, "must be at most 1")
        self._check_wsd()

    def _check_numbers_of_name(self) -> None:
        """The optimizer has the numbers that it uses, and no others."""
        usual = _OPTIMIZERS[self.name]
        for field in ("betas", "eps", "momentum"):
            value = getattr(self, field)
            if value is None and field in usual:
                refuse(f"optim.{field}", None, f"{self.name} needs it; {usual[field]} is usual")
            optional = (self.name, field) == ("adafactor", "momentum")
            if value is not None and field not in usual and not optional:
                refuse(f"optim.{field}", value, f"{self.name} has none; set None")
        if self.betas is not None and (len(self.betas) != 2 or not all(0 <= b < 1 for b in self.betas)):
            refuse("optim.betas", self.betas, "must be two numbers in [0, 1)")
        if self.matrix_rate != 1 and self.name not in ("adamw", "lion"):
            refuse("optim.matrix_rate", self.matrix_rate, f"{self.name} scales by the matrix as it is; set 1")
        if self.momentum is not None and not 0 <= self.momentum < 1:
            refuse("optim.momentum", self.momentum, "must be in [0, 1)")

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
class SkipStepConfig:
    """The rule that skips batches with an outlying gradient norm (training/skip_step.py)."""

    # Standard deviations above the mean of the gradient norms before; None: no batch is skipped.
    sigma_factor: float | None = enters(CONSTANT)
    rolling_interval: int = enters(CONSTANT)  # how many norms before

    def __post_init__(self):
        positive("skip_step", self, "sigma_factor", "rolling_interval")
        if self.rolling_interval < 8:
            refuse(
                "skip_step.rolling_interval",
                self.rolling_interval,
                "must be at least 8: fewer norms are too few for a standard deviation",
            )


@dataclasses.dataclass(frozen=True)
class EvalConfig:
    """The evaluation on held-out windows."""

    sequences: int = enters(VALUE)  # held-out windows, drawn evenly over the held-out part
    every_steps: int | None = enters(VALUE)  # None: at the end only
    # How tokens reach their experts in evaluations. None: what drops nothing, see `Config._evaluation_dispatch`.
    dispatch: str | None = enters(VALUE)
    stores: tuple[str, ...] = enters(HOW)  # NAME=FOLDER: other held-out parts, evaluated on at the end

    def __post_init__(self):
        positive("eval", self, "sequences", "every_steps")
        if self.dispatch is not None:
            one_of("eval.dispatch", self.dispatch, *DISPATCHES)
        held_out_stores.check(self.stores)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
    """When checkpoints are saved, and how many are kept."""

    every_steps: int | None = enters(HOW)
    every_minutes: float | None = enters(HOW)
    keep: int = enters(HOW)

    def __post_init__(self):
        positive("checkpoint", self, "every_steps", "every_minutes", "keep")


@dataclasses.dataclass(frozen=True)
class ProfileConfig:
    """Which steps the profiler traces."""

    first_step: int | None = enters(HOW)  # None: none
    steps: int = enters(HOW)

    def __post_init__(self):
        not_negative("profile", self, "first_step")
        positive("profile", self, "steps")


@dataclasses.dataclass(frozen=True)
class MeshConfig:
    """Devices along each axis of the mesh; one may be -1, what is left."""

    replica: int = enters(HOW)
    data: int = enters(HOW)
    expert: int = enters(HOW)

    def __post_init__(self):
        sizes = {axis.name: getattr(self, axis.name) for axis in dataclasses.fields(self)}
        for axis, size in sizes.items():
            if size < 1 and size != -1:
                refuse(f"mesh.{axis}", size, "must be above 0, or -1 for what is left")
        if list(sizes.values()).count(-1) > 1:
            refuse("mesh", sizes, "only one axis may be -1")


@dataclasses.dataclass(frozen=True)
class SweepConfig:
    """How the runs of a sweep are started."""

    pack: int = enters(PROGRAM)  # runs that train together in one program; 1: each alone

    def __post_init__(self):
        positive("sweep", self, "pack")


@dataclasses.dataclass(frozen=True)
class Config:
    """One run. A group of fields enters what its fields enter."""

    model: ModelConfig
    moe: MoeConfig | None = enters(CONSTANT)  # noqa: RUF009 (a field). None: the dense twin
    data: DataConfig
    train: TrainConfig
    optim: OptimConfig
    skip_step: SkipStepConfig
    eval: EvalConfig
    checkpoint: CheckpointConfig
    profile: ProfileConfig
    sweep: SweepConfig
    mesh: MeshConfig
    seed: int = enters(RESULT | TRUNK)  # runs of one pack differ in it
    tensorboard: bool = enters(HOW)
    wandb: str | None = enters(HOW)  # project of Weights & Biases; None: none

    def __post_init__(self):
        if self.sweep.pack > 1 and (self.profile.first_step is not None or self.wandb is not None):
            refuse("sweep.pack", self.sweep.pack, "packed runs are neither profiled nor sent to Weights & Biases")
        if self.sweep.pack > 1 and self.checkpoint.keep == 1:
            refuse(
                "checkpoint.keep", 1,
                "packed runs go on at the newest step that all have saved, which takes at least 2 of each",
            )  # fmt: skip
        self._check_schedule()
        if self.moe is None:
            self._set_evaluation_dispatch(None)
            return
        moe = self.moe.completed(self.model.d_ff)
        object.__setattr__(self, "moe", moe)
        if self.mesh.expert > 0 and moe.n_experts % self.mesh.expert:
            refuse("mesh.expert", self.mesh.expert, f"must divide the {moe.n_experts} experts")
        self._set_evaluation_dispatch(self._evaluation_dispatch(moe))
        self._check_groups(moe)

    def _evaluation_dispatch(self, moe: MoeConfig) -> str | None:
        """eval.dispatch as it is meant: where tokens choose, an evaluation drops nothing unless it is told to.

        Expert choice, the oracle `dense` and what is batch-prioritised stay as they are. A router of the user's own
        leaves it open, None: whether it fills slots itself is known where it is imported (model/routers)."""
        asked = self.eval.dispatch
        if moe.router == "expert_choice" or moe.batch_prioritised:
            if asked == "dropless":
                why = "batch_prioritised decides what is dropped" if moe.batch_prioritised else "it fills every slot"
                refuse("eval.dispatch", asked, f"router {moe.router} has no dropless evaluation: {why}; use None")
            return moe.dispatch if asked is None else asked
        if asked is not None or moe.dispatch in ("dense", "dropless"):
            return asked or moe.dispatch
        return "dropless" if moe.router_module is None else None

    def _set_evaluation_dispatch(self, dispatch: str | None) -> None:
        if self.eval.dispatch != dispatch:
            object.__setattr__(self, "eval", dataclasses.replace(self.eval, dispatch=dispatch))

    def _check_schedule(self) -> None:
        """The warm-up ends before the rate falls, and before the run does."""
        if self.optim.schedule == "cosine" and self.warmup_steps > self.steps:
            refuse(
                "optim.warmup_tokens", self.optim.warmup_tokens,
                f"are {self.warmup_steps} steps, but the run has {self.steps}",
            )  # fmt: skip
        if self.optim.schedule == "wsd" and self.warmup_steps > self.decay_start:
            refuse(
                "optim.warmup_tokens", self.optim.warmup_tokens,
                f"are {self.warmup_steps} steps, but the decay begins after {self.decay_start} of the "
                f"{self.steps} steps",
            )  # fmt: skip
        if self.optim.schedule == "wsd" and self.steps - self.decay_start < 2:  # its first update has the whole rate
            refuse(
                "optim.decay_fraction", self.optim.decay_fraction,
                f"is {self.steps - self.decay_start} of the {self.steps} steps, over which the rate cannot fall; 2 are "
                "the least",
            )  # fmt: skip

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
            if not is_whole(taken):
                refuse(
                    "moe.group_sequences", group,
                    f"an expert takes group · K / E = {group} · {moe.active_rate:g} / {moe.expansion_rate:g} = "
                    f"{taken:g} sequences at a position, which must be a whole number of at least 1",
                )  # fmt: skip
        elif {moe.dispatch, self.eval.dispatch} != {
            "dropless"
        } and moe.capacity_factor * group * self.data.sequence_length * moe.top_k < moe.n_experts:
            refuse(
                "moe.capacity_factor", moe.capacity_factor,
                f"gives {group * self.data.sequence_length} tokens · top_k {moe.top_k} / {moe.n_experts} experts "
                "less than one slot an expert; lengthen the group or raise the factor",
            )  # fmt: skip

    @property
    def batch_tokens(self) -> int:
        """Tokens of one step."""
        return self.train.batch_sequences * self.data.sequence_length

    @property
    def steps(self) -> int:
        """Updates of the whole run."""
        return math.ceil(self.train.tokens / self.batch_tokens)

    @property
    def warmup_steps(self) -> int:
        """Updates until the learning rate is at its highest."""
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
