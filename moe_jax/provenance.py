"""The versions, commit and devices that a run is made with."""

import contextlib
import importlib.metadata
import os
import platform
import socket
import subprocess
from pathlib import Path
from typing import Any

_PACKAGES = ("moe_jax", "jax", "jaxlib", "flax", "optax", "orbax-checkpoint", "tensorstore", "numpy")


def versions() -> dict[str, str]:
    """The versions of Python and of the packages that can change a result; "not installed" for a missing one."""
    found = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:  # a source tree that is not installed
            found[package] = "not installed"
    return found


def source_tree() -> Path | None:
    """The root of the clone or copy of the repository that this code is run from; None where a wheel installed it."""
    root = Path(__file__).resolve().parents[1]
    return root if (root / "setup.py").is_file() and (root / "configs").is_dir() else None


def git_commit() -> str | None:
    """The checkout's commit, with `+` if tracked files differ from it.

    Outside a checkout, the environment variable MOE_JAX_COMMIT, which images and hosts set; None without it."""
    root = source_tree()  # a wheel may lie in an environment inside another repository, whose commit is not ours
    if root is not None:
        with contextlib.suppress(OSError, subprocess.SubprocessError):
            changed = _git(root, "status", "--porcelain", "--untracked-files=no")
            return _git(root, "rev-parse", "HEAD") + ("+" if changed else "")
    return os.environ.get("MOE_JAX_COMMIT") or None


def _git(root: Path, *args: str) -> str:
    return subprocess.run(
        ["git", "-C", str(root), *args], check=True, capture_output=True, text=True, timeout=10
    ).stdout.strip()


def devices() -> dict[str, Any]:
    """The kind and platform of JAX's first device, the number of devices over all hosts, and this host's name."""
    import jax  # here, because launchers ask for the commit without JAX

    device = jax.devices()[0]
    return {
        "device": device.device_kind,
        "platform": device.platform,
        "n_devices": jax.device_count(),
        "host": socket.gethostname(),
    }
