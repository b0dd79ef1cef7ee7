"""A run's newest checkpoint as a model that drops nothing: a request's score depends on no other request."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

from moe_jax.config.schema import Config
from moe_jax.errors import UserError
from moe_jax.evaluation import loading
from moe_jax.evaluation.loading import Restored
from moe_jax.evaluation.without_dropping import with_config, without_dropping


def restore_dropless(
    run_folder: str, devices: Sequence[Any] | None = None, say: Callable[[str], None] = print
) -> Restored:
    """Restores a run's newest checkpoint without capacity. Raises UserError as loading.restore, and for a router whose
    choice depends on other sequences."""
    run = loading.run_of(run_folder)
    check_independent(run.name, run.config)
    return with_config(loading.restore(run_folder, devices, say), run, dropless(run.config))


def check_independent(name: str, config: Config) -> None:
    """Raises UserError where a token's experts depend on other sequences of the batch."""
    if config.moe is not None and config.moe.router == "expert_choice":
        raise UserError(
            f"{name}: its router is expert_choice, where experts choose among the sequences of a batch, so the score "
            "of a request would depend on the others; tasks need token_choice or a dense run"
        )


def dropless(config: Config) -> Config:
    """The config without capacity, in groups of one sequence, and with the attention that fits any length."""
    config = without_dropping(config)
    model = dataclasses.replace(config.model, attention="auto", remat="none")
    moe = None if config.moe is None else dataclasses.replace(config.moe, group_sequences=1)
    return dataclasses.replace(config, model=model, moe=moe)
