"""The MoE layer's part of a config: E, G and K, or numbers of experts; the router; how tokens reach their experts."""

import dataclasses
import re

from moe_jax.config.checks import is_whole, not_negative, one_of, positive, refuse, tidy
from moe_jax.config.enters import CONSTANT, enters

DISPATCHES = ("slots", "dropless", "dense")  # how tokens reach their experts
_USERS_ROUTER = re.compile(r"[^\W\d]\w*(\.[^\W\d]\w*)*:[^\W\d]\w*")


@dataclasses.dataclass(frozen=True)
class MoeConfig:
    """The MoE layer that replaces every feed-forward. Fields that are None follow from others, see `completed`."""

    expansion_rate: float | None = enters(CONSTANT)  # E: parameters of the experts / of the dense feed-forward
    granularity: float | None = enters(CONSTANT)  # G: d_ff / d_expert
    active_rate: float | None = enters(CONSTANT)  # K: active expert width / d_ff
    n_experts: int | None = enters(CONSTANT)  # E G
    top_k: int | None = enters(CONSTANT)  # K G
    d_expert: int | None = enters(CONSTANT)  # d_ff / G
    router: str = enters(CONSTANT)  # token_choice, expert_choice, or module:name of the user's own
    softmax: str = enters(CONSTANT)
    score: str = enters(CONSTANT)  # softmax or sigmoid: what makes weights of token choice from logits
    renormalise: bool = enters(CONSTANT)  # the weights of a token's experts are divided by their sum
    routed_scale: float = enters(CONSTANT)  # multiplies these weights
    expert_groups: int = enters(CONSTANT)  # equal groups of experts; 1: none
    chosen_groups: int = enters(CONSTANT)  # groups that a token's experts are chosen from
    group_sequences: int = enters(CONSTANT)  # sequences that are routed together
    capacity_factor: float = enters(CONSTANT)
    load_balance_loss_weight: float = enters(CONSTANT)
    router_z_loss_weight: float = enters(CONSTANT)
    bias_update_rate: float = enters(CONSTANT)
    output_norm: bool = enters(CONSTANT)
    batch_prioritised: bool = enters(CONSTANT)
    shared_experts: int = enters(CONSTANT)
    shared_gate: bool = enters(CONSTANT)  # the shared experts' output times sigmoid(x · w)
    dispatch: str = enters(CONSTANT)

    def __post_init__(self):
        positive(
            "moe", self, "expansion_rate", "granularity", "active_rate", "n_experts", "top_k", "d_expert",
            "group_sequences", "capacity_factor", "routed_scale", "expert_groups", "chosen_groups",
        )  # fmt: skip
        not_negative(
            "moe", self, "load_balance_loss_weight", "router_z_loss_weight", "bias_update_rate", "shared_experts"
        )
        one_of("moe.dispatch", self.dispatch, *DISPATCHES)
        one_of("moe.score", self.score, "softmax", "sigmoid")
        if self.shared_gate and not self.shared_experts:
            refuse("moe.shared_gate", True, "multiplies the output of shared experts, but moe.shared_experts = 0")
        if self.chosen_groups > self.expert_groups:
            refuse(
                "moe.chosen_groups", self.chosen_groups, f"must be at most moe.expert_groups = {self.expert_groups}"
            )  # fmt: skip
        self._check_router()
        self._check_weights()

    def _check_router(self) -> None:
        if self.router_module is None and self.router not in ("token_choice", "expert_choice"):
            refuse(
                "moe.router", self.router,
                "must be one of 'token_choice', 'expert_choice', or 'module:name' for a router of your own",
            )  # fmt: skip
        # A user's router counts as token choice: tokens choose experts, which may have too few slots for them.
        if self.router == "expert_choice":
            one_of("moe.softmax", self.softmax, "over_experts", "over_tokens")
            for field in ("load_balance_loss_weight", "bias_update_rate"):
                if value := getattr(self, field):
                    refuse(f"moe.{field}", value, "expert_choice is balanced as it is; set 0")
            if self.dispatch == "dropless":
                refuse("moe.dispatch", self.dispatch, "expert_choice fills every slot as it is; use slots")
        else:
            one_of("moe.softmax", self.softmax, "before_top_k", "after_top_k")
        if self.batch_prioritised and (self.router == "expert_choice" or self.dispatch == "dropless"):
            refuse(
                "moe.batch_prioritised", self.batch_prioritised,
                f"decides what is dropped, but router {self.router} with dispatch {self.dispatch} drops nothing",
            )  # fmt: skip

    def _check_weights(self) -> None:
        """Fields that say what the weights of chosen experts are, and which groups they are chosen from."""
        none = {"score": "softmax", "renormalise": False, "routed_scale": 1, "expert_groups": 1}
        if self.router == "expert_choice":
            for field, value in none.items():
                if getattr(self, field) != value:
                    refuse(f"moe.{field}", getattr(self, field), f"is for token choice; with expert_choice set {value}")
        elif self.softmax == "after_top_k":
            if self.score == "sigmoid":
                refuse(
                    "moe.softmax", self.softmax,
                    "a sigmoid scores every expert by itself, before the choice; use before_top_k, and "
                    "moe.renormalise for weights that add up to 1",
                )  # fmt: skip
            if self.renormalise:
                refuse("moe.renormalise", True, "weights add up to 1 with softmax after_top_k as it is; set False")

    @property
    def router_module(self) -> str | None:
        """The module of a user's router, `module:name`; None for ours."""
        return self.router.partition(":")[0] if _USERS_ROUTER.fullmatch(self.router) else None

    @property
    def sparsity(self) -> float:
        """S = 1 − K / E."""
        return 1 - self.active_rate / self.expansion_rate

    def completed(self, d_ff: int) -> "MoeConfig":
        """The layer with both (E, G, K) and (n_experts, top_k, d_expert), from whichever are given. Raises UserError
        where they contradict each other, with the numbers."""
        G, d_expert = self._granularity(d_ff)
        n, E = _count_and_rate("n_experts", self.n_experts, "expansion_rate", self.expansion_rate, G)
        k, K = _count_and_rate("top_k", self.top_k, "active_rate", self.active_rate, G)
        if k > n:
            refuse("moe.top_k", k, f"a token cannot choose more experts than there are, n_experts = {n}")
        if self.softmax == "after_top_k" and k == 1:
            refuse(
                "moe.softmax", self.softmax,
                "with top_k = 1 its weight is always 1 and the router gets no gradient; use before_top_k",
            )  # fmt: skip
        if self.renormalise and k == 1:
            refuse(
                "moe.renormalise", True,
                "with top_k = 1 its weight is always 1 and the router gets no gradient; set False",
            )  # fmt: skip
        self._check_groups(n, k)
        completed = {
            "expansion_rate": tidy(E), "granularity": tidy(G), "active_rate": tidy(K), "n_experts": n, "top_k": k,
            "d_expert": d_expert,
        }  # fmt: skip
        if [(v, type(v)) for v in completed.values()] == [(v, type(v)) for v in map(vars(self).get, completed)]:
            return self  # as in every config that was written to a file
        return dataclasses.replace(self, **completed)

    def _check_groups(self, n: int, k: int) -> None:
        """Refuses groups of n experts that k cannot be chosen from."""
        groups, chosen = self.expert_groups, self.chosen_groups
        if groups == 1:
            return
        if n % groups:
            refuse("moe.expert_groups", groups, f"must divide the {n} experts")
        if n // groups < 2:
            refuse(
                "moe.expert_groups", groups,
                f"leaves {n // groups} expert a group, but a group's score is the sum of its two best",
            )  # fmt: skip
        if k > chosen * (n // groups):
            refuse(
                "moe.chosen_groups", chosen,
                f"have {chosen * (n // groups)} experts ({n} / {groups} a group), fewer than top_k = {k}",
            )  # fmt: skip

    def _granularity(self, d_ff: int) -> tuple[float, int]:
        """(G, d_expert)."""
        G, d_expert = self.granularity, self.d_expert
        if G is None and d_expert is None:
            refuse("moe.granularity", G, "give granularity or d_expert")
        if G is None:
            return d_ff / d_expert, d_expert
        if d_ff % G or d_ff // G < 1:
            refuse("moe.granularity", G, f"must divide model.d_ff = {d_ff}")
        width = int(d_ff // G)
        if d_expert not in (None, width):
            refuse("moe.d_expert", d_expert, f"but d_ff / granularity = {d_ff} / {G:g} = {width}; give one of the two")
        return G, width


def _count_and_rate(
    count_name: str, count: int | None, rate_name: str, rate: float | None, G: float
) -> tuple[int, float]:
    """A number of experts and its rate, from the one that is given: count = rate · G."""
    if rate is None:
        if count is None:
            refuse(f"moe.{rate_name}", None, f"give {rate_name} or {count_name}")
        return count, count / G
    product = rate * G
    if not is_whole(product):
        refuse(
            f"moe.{rate_name}", rate,
            f"times granularity {G:g} must be a whole number of experts, not {product:g}",
        )  # fmt: skip
    if count not in (None, round(product)):
        refuse(
            f"moe.{count_name}", count,
            f"but {rate_name} · granularity = {rate:g} · {G:g} = {product:g}; give one of the two",
        )  # fmt: skip
    return round(product), rate
