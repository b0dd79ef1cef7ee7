"""Names of runs and trunks: short enough for every launcher, and carrying the axes of the grid."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from moe_jax.config import counts
from moe_jax.config.schema import Config
from moe_jax.errors import UserError

# A name carries n, d, g and s, and these fields where a cell sets them.
_SUFFIXES = {
    "moe.expansion_rate": "e",
    "moe.n_experts": "e",
    "moe.active_rate": "k",
    "moe.top_k": "k",
    "train.batch_sequences": "b",
    "optim.learning_rate": "lr",
    "optim.weight_decay": "wd",
    "moe.capacity_factor": "c",
    "moe.load_balance_loss_weight": "lb",
}
_OPTIMIZERS = {"adamw": "aw", "muon": "mu", "lion": "li", "adafactor": "af"}
_MAX_NAME = 28
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_RETRY = re.compile(r"-r[0-9]+$")  # the end of the name of a job that is submitted again


def run_name(config: Config, axes: Mapping[str, Any], name: str | None = None) -> str:
    """`n25m-d16b-g8-s0`: n_active_nonemb, tokens, granularity (or `dense`), what else the cell sets, and the seed.

    `axes` are the fields that the cell sets, with their values; `name` is the cell's own. The name depends on the run
    alone, so an extended grid keeps the names it has. Raises UserError where it is too long, or no name."""
    if name is not None:
        return check_name(name)
    parts = [*_size_parts(config), "dense" if config.moe is None else f"g{_short(config.moe.granularity)}"]
    for field, letter in _SUFFIXES.items():
        if field in axes:
            parts.append(f"{letter}{_short(axes[field])}")
    if "optim.name" in axes:
        parts.append(_OPTIMIZERS[config.optim.name])
    if "moe.router" in axes:
        parts.append(_router_part(config.moe.router))
    parts.append(f"s{config.seed}")
    return check_name("-".join(parts))


def _size_parts(config: Config) -> list[str]:
    """The parts of a name for N and D, such as n25m and d16b. Embeddings are not counted in n, so the vocabulary does
    not change it."""
    return [f"n{_short(counts.count_parameters(config, 0).n_active_nonemb)}", f"d{_short(config.train.tokens)}"]


def _router_part(router: str) -> str:
    """tc, ec, or the name of a user's router in small letters and digits."""
    ours = {"token_choice": "tc", "expert_choice": "ec"}
    return ours.get(router) or re.sub("[^a-z0-9]", "", router.rpartition(":")[2].lower()) or "router"


def group_name(kind: str, first: str) -> str:
    """`pack-1a2b3c4d`, by a hash of the name of its first run, so that a grid that is extended keeps it."""
    return f"{kind}-{hashlib.sha256(first.encode()).hexdigest()[:8]}"


def trunk_name(branch: str, config: Config) -> str:
    """`n25m-g8-s0`: the name of its first branch without the tokens; a group_name where that name has other parts."""
    n, d = _size_parts(config)
    if branch.startswith(f"{n}-{d}-"):
        return f"{n}-{branch.removeprefix(f'{n}-{d}-')}"
    return group_name("trunk", branch)


def check_name(name: Any) -> str:
    """The name, if a run may have it. Raises UserError otherwise: names become folders and names of jobs."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise UserError(
            f"the run name {name!r} must be at most {_MAX_NAME} characters: small letters, digits and inner dashes, "
            "a letter first; give the grid's cell a name of its own: Cell({…}, name=…)"
        )
    if _RETRY.search(name):
        raise UserError(
            f"the run name {name!r} ends in -r and digits, as the job of a run that is submitted again does; give the "
            "grid's cell another name"
        )
    return name


def _short(x: float) -> str:
    """Two digits, enough to tell cells apart: 25165824 -> 25m, 6144 -> 6p1k; below 1 without the minus, 0.0025 ->
    2p5e3."""
    for letter, unit in (("t", 1e12), ("b", 1e9), ("m", 1e6), ("k", 1e3)):
        if x >= 0.9995 * unit:
            scaled = x / unit
            return (f"{scaled:.2g}" if scaled < 9.95 else f"{scaled:.0f}").replace(".", "p") + letter
    if x >= 1 or x == 0:
        return f"{x:.4g}".replace(".", "p")
    mantissa, exponent = f"{x:.2e}".split("e")
    return f"{float(mantissa):g}".replace(".", "p") + f"e{-int(exponent)}"
