"""Checks of this machine: Python, packages, devices, the compiler for TPUs, the cache folder, the commit."""

import importlib.metadata
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet

from moe_jax import provenance
from moe_jax.cli.checks import Finding
from moe_jax.plan import compiles

_DEVICE_SECONDS = 120.0
_LIST_DEVICES = (
    "import jax; d = jax.devices(); "
    "print(f'{len(d)} × {d[0].device_kind}, of {jax.process_count()} process, default backend {jax.default_backend()}')"
)


def findings(launcher: str | None) -> Iterator[Finding]:
    """All checks of this machine."""
    yield python()
    yield packages()
    yield devices()
    yield libtpu()
    yield caches()
    yield commit(launcher)


def python() -> Finding:
    """Whether Python's version is one that moe_jax supports."""
    version, asked = platform.python_version(), _metadata("Requires-Python") or ">=3.11,<3.14"
    if SpecifierSet(asked).contains(version):
        return Finding("ok", "python", f"{version} at {sys.executable}")
    return Finding("fail", "python", f"{version}, but moe_jax needs {asked}", "make a new environment")


def packages() -> Finding:
    """Whether the packages that setup.py requires are installed, in versions that it allows."""
    try:
        asked = [Requirement(line) for line in importlib.metadata.requires("moe_jax") or []]
    except importlib.metadata.PackageNotFoundError:
        return Finding("warn", "packages", "moe_jax runs from its folder and is not installed", "pip install -e .")
    asked = [r for r in asked if r.marker is None or r.marker.evaluate({"extra": ""})]
    wrong = [words for r in asked if (words := _unmet(r))]
    if wrong:
        return Finding("fail", "packages", "; ".join(wrong), "pip install -e . --constraint constraints.txt")
    jax = importlib.metadata.version("jax")
    return Finding("ok", "packages", f"all {len(asked)} required packages are installed, among them jax {jax}")


def _unmet(asked: Requirement) -> str:
    try:
        found = importlib.metadata.version(asked.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{asked.name} is missing"
    return "" if asked.specifier.contains(found, prereleases=True) else f"{asked.name} {found} is not {asked.specifier}"


def _metadata(field: str) -> str | None:
    try:
        return importlib.metadata.metadata("moe_jax")[field]
    except importlib.metadata.PackageNotFoundError:
        return None


def devices() -> Finding:
    """The devices that JAX finds, in a process of its own: a chip that another process holds can make it wait or
    crash."""
    try:
        done = subprocess.run(
            [sys.executable, "-c", _LIST_DEVICES], capture_output=True, text=True, errors="replace",
            timeout=_DEVICE_SECONDS, stdin=subprocess.DEVNULL,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        return Finding(
            "fail", "devices", f"JAX did not answer within {_DEVICE_SECONDS:.0f} s",
            "another process may hold the chip: end it; on a slice of several hosts, run doctor on all of them at once",
        )  # fmt: skip
    if done.returncode != 0:
        said = [line for line in done.stderr.splitlines() if line.strip()] or [f"code {done.returncode}"]
        return Finding("fail", "devices", f"JAX finds none: {said[-1]}", "check JAX_PLATFORMS")
    return Finding("ok", "devices", done.stdout.strip().splitlines()[-1])


def libtpu() -> Finding:
    """Whether libtpu is installed, which `plan --topology` needs."""
    try:
        return Finding("ok", "libtpu", f"{importlib.metadata.version('libtpu')}: plan --topology works here")
    except importlib.metadata.PackageNotFoundError:
        return Finding("warn", "libtpu", "is not installed: no plan --topology", "pip install 'moe_jax[plan]'")


def caches() -> Finding:
    """The folder of compiled programs; without it, each run compiles again."""
    folder = Path(os.environ.get("JAX_COMPILATION_CACHE_DIR") or compiles.default_folder().parent)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            return Finding("ok", "caches", f"{folder}")
    except OSError as e:
        return Finding(
            "warn", "caches", f"{folder} cannot be written ({e.strerror}): each run compiles again",
            "set XDG_CACHE_HOME to a folder that you can write",
        )  # fmt: skip


def commit(launcher: str | None) -> Finding:
    """The commit of the code. Queued resources train the code of this commit."""
    found = provenance.git_commit()
    if found is None:
        bad = "fail" if launcher == "queued-resources" else "warn"
        return Finding(bad, "commit", "unknown: results will not say which code they came from", "run from a clone")
    if found.endswith("+"):
        return Finding(
            "warn", "commit", f"{found[:12]}, and files differ from it: other hosts get the commit", "commit first"
        )
    return Finding("ok", "commit", found[:12])
