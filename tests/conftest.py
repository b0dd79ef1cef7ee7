"""Eight virtual CPU devices, ranks and dtypes that may not mix silently, and the verbs as a user runs them."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

# Before JAX is imported: by environment, so that tests without JAX do not pay for its import.
os.environ["JAX_PLATFORMS"] = "cpu"
os.environ["XLA_FLAGS"] = (
    "--xla_force_host_platform_device_count=8 --xla_cpu_collective_call_terminate_timeout_seconds=600"
)
os.environ["JAX_NUMPY_RANK_PROMOTION"] = "raise"
os.environ["JAX_NUMPY_DTYPE_PROMOTION"] = "strict"
os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] = "true"  # tests compile much and compute little
# Tests, their two workers, and the processes that they start, compile a shape once: pytest-xdist's workers find the
# controller's folder in their environment.
if "PYTEST_XDIST_WORKER" not in os.environ:
    os.environ["JAX_COMPILATION_CACHE_DIR"] = tempfile.mkdtemp(prefix="moe_jax_tests_xla")
os.environ["JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS"] = "0.1"
os.environ["JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES"] = "-1"

import pytest

# A shell's background jobs ignore Ctrl-C, and so would all that the tests start.
signal.signal(signal.SIGINT, signal.default_int_handler)

ROOT = Path(__file__).resolve().parent.parent


def pytest_collection_finish():
    """JAX has read how strict it is to be. What the product starts from here on, as compilers for TPUs, is as a
    user's."""
    if "jax" in sys.modules:
        os.environ.pop("JAX_NUMPY_DTYPE_PROMOTION", None)


def pytest_sessionfinish():
    """The folder of compiled programs goes with the process that made it."""
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["JAX_COMPILATION_CACHE_DIR"], ignore_errors=True)


def child_environment(devices: int = 1, **extra: str) -> dict[str, str]:
    """The environment of a process that a test starts: as a user's, on the CPU, without what conftest sets for
    itself."""
    flags = f"--xla_force_host_platform_device_count={devices}" if devices > 1 else ""
    ours = ("JAX_NUMPY_RANK_PROMOTION", "JAX_NUMPY_DTYPE_PROMOTION", "JAX_DISABLE_MOST_OPTIMIZATIONS")
    return {k: v for k, v in os.environ.items() if k not in ours} | {"XLA_FLAGS": flags} | extra


@pytest.fixture(scope="session")
def verb() -> Callable[..., subprocess.CompletedProcess]:
    """verb("train", "--config=…", cwd=…, devices=1) -> the finished process, with its output as text."""

    def run(
        *args: str, cwd: Path = ROOT, devices: int = 1, timeout: float = 300, **extra: str
    ) -> subprocess.CompletedProcess:
        command = [sys.executable, "-m", "moe_jax", *map(str, args)]
        environment = child_environment(devices, **extra)
        return subprocess.run(
            command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
        )

    return run


@pytest.fixture(scope="session")
def byte_store(tmp_path_factory, verb) -> str:
    """The embedded corpus as bytes, prepared once a session."""
    path = tmp_path_factory.mktemp("stores") / "python_stdlib_byte"
    done = verb("prepare", f"--store={path}")
    assert done.returncode == 0, done.stderr
    return str(path)


@pytest.fixture(scope="session")
def words_store(tmp_path_factory) -> Path:
    """A small store, made at once."""
    from tests.data_stores import make_store

    path = tmp_path_factory.mktemp("stores") / "words"
    make_store(path)
    return path


@pytest.fixture
def submit(tmp_path, monkeypatch, words_store):
    """The verb `submit` on a sweep in the test's folder: see SubmitVerb."""
    from moe_jax.sweep.launchers import xpk
    from tests.submit_verb import SubmitVerb

    monkeypatch.setattr(xpk, "client_path", lambda: "xpk")
    made = SubmitVerb(tmp_path, words_store)
    monkeypatch.setenv("PATH", f"{made.xpk.bin}:{made.gcloud.path}")
    return made
