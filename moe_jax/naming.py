"""Names of runs and trunks: short enough for every launcher, and carrying the axes of the grid."""

import hashlib
import re
from collections.abc import Mapping
from typing import Any

from moe_jax import counts
from moe_jax.config import Config
from moe_jax.errors import UserError

# Axes that a name carries always (n, d, g, s), and these where a cell sets them.
_SUFFIXES = {
    "moe.expansion_rate": "e",
    "moe.n_experts": "e",
    "moe.active_rate": "k",
    "moe.top_k": "k",
    "train.batch_sequences": "b",
    "optim.learning_rate": "lr",
    "optim.weight_decay": "wd",
    "moe.capacity_factor": "c",
    "moe.load_balance_weight": "lb",
}
_MAX_NAME = 28
_NAME = re.compile(r"[a-z]([-a-z0-9]*[a-z0-9])?")
_RETRY = re.compile(r"-r[0-9]+$")  # ends the name of a job that is submitted again


def run_name(config: Config, cell: Mapping[str, Any]) -> str:
    """`n25m-d16b-g8-s0`: n_active_nonemb, tokens, granularity (or `dense`), what else the cell sets, and the seed.

    A name depends on the run alone, so a grid that is extended later keeps the names it has."""
    if "name" in cell:
        return check_name(cell["name"])

    # Embeddings are not counted in n, so any vocabulary gives the same name.
    parts = [f"n{_short(counts.count_parameters(config, 0).n_active_nonemb)}", f"d{_short(config.train.tokens)}"]
    parts.append("dense" if config.moe is None else f"g{_short(config.moe.granularity)}")
    for field, letter in _SUFFIXES.items():
        if field in cell:
            parts.append(f"{letter}{_short(cell[field])}")
    if cell.get("moe.router"):
        parts.append({"token_choice": "tc", "expert_choice": "ec"}[config.moe.router])
    parts.append(f"s{config.seed}")
    return check_name("-".join(parts))


def group_name(kind: str, first: str) -> str:
    """`pack-1a2b3c4d`, after the first of its runs: a grid that is extended, or trained in another way, keeps it."""
    return f"{kind}-{hashlib.sha256(first.encode()).hexdigest()[:8]}"


def trunk_name(branch: str, overrides: Mapping[str, Any]) -> str:
    """`n25m-g8-s0`: the name of its first branch without the tokens; where that names itself, a group_name."""
    if "name" in overrides:
        return group_name("trunk", branch)
    n, _, *rest = branch.split("-")
    return "-".join([n, *rest])


def check_name(name: Any) -> str:
    """The name. Raises UserError where no run may be called so: names become folders and job names."""
    if not isinstance(name, str) or not _NAME.fullmatch(name) or len(name) > _MAX_NAME:
        raise UserError(
            f"the run name {name!r} must be at most {_MAX_NAME} characters: small letters, digits and inner dashes, "
            "a letter first; set 'name' in the grid's cell"
        )
    if _RETRY.search(name):
        raise UserError(
            f"the run name {name!r} ends as the job of a run that is submitted again does, in -r and digits; give it "
            "another 'name' in the grid's cell"
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
