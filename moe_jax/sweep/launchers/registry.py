"""The names that `--launcher` accepts, and the module of each. A new launcher needs a module and a line here.

A module is imported when its launcher is chosen. It has the two functions of `LauncherModule`.
"""

import argparse
import importlib
from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from moe_jax.sweep.launchers.launcher import Launcher

MODULES = {
    "xpk": "moe_jax.sweep.launchers.xpk",
    "queued-resources": "moe_jax.sweep.launchers.queued_resources",
    "local": "moe_jax.sweep.launchers.local_launcher",
}


class LauncherModule(Protocol):
    """What a launcher's module defines."""

    def add_flags(self, group: argparse._ArgumentGroup) -> None:
        """Adds the launcher's own flags to the parser of `submit`."""

    def make(self, flags: argparse.Namespace, workdir: str, extra: Sequence[str]) -> "Launcher":
        """The launcher for these flags. `workdir` is an absolute path or gs://; `extra` are the arguments after `--`.
        Raises UserError for bad flags."""


def launcher_module(name: str) -> LauncherModule:
    """The module of a launcher of this name."""
    return importlib.import_module(MODULES[name])
