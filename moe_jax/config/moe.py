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
    group_sequences: int = enters(CONSTANT)  # sequences that are routed together
    capacity_factor: float = enters(CONSTANT)
    load_balance_loss_weight: float = enters(CONSTANT)
    router_z_loss_weight: float = enters(CONSTANT)
    bias_update_rate: float = enters(CONSTANT)
    output_norm: bool = enters(CONSTANT)
    batch_prioritised: bool = enters(CONSTANT)
    shared_experts: int = enters(CONSTANT)
    dispatch: str = enters(CONSTANT)

    def __post_init__(self):
        positive(
            "moe", self, "expansion_rate", "granularity", "active_rate", "n_experts", "top_k", "d_expert",
            "group_sequences", "capacity_factor",
        )  # fmt: skip
        not_negative(
            "moe", self, "load_balance_loss_weight", "router_z_loss_weight", "bias_update_rate", "shared_experts"
        )
        one_of("moe.dispatch", self.dispatch, *DISPATCHES)
        self._check_router()

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
        completed = {
            "expansion_rate": tidy(E), "granularity": tidy(G), "active_rate": tidy(K), "n_experts": n, "top_k": k,
            "d_expert": d_expert,
        }  # fmt: skip
        if [(v, type(v)) for v in completed.values()] == [(v, type(v)) for v in map(vars(self).get, completed)]:
            return self  # as in every config that was written to a file
        return dataclasses.replace(self, **completed)

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
