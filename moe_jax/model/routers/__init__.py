"""Routers: from the logits of routing groups to assignments. Pure functions, at least float32, no mesh.

protocol       what a router gets and gives: Router, Choice, Slots, Statistics
registry       a router by its name in the config, the user's own (`module:name`) too
token_choice   each token takes its best experts
expert_choice  each expert takes its best tokens
statistics     losses and metrics of a router, for those of your own too
slots          slots filled from the choices of tokens, and the sort by expert
"""

from moe_jax.model.routers.protocol import Choice, Router, Slots, Statistics
from moe_jax.model.routers.statistics import token_statistics

__all__ = ["Choice", "Router", "Slots", "Statistics", "token_statistics"]
