"""A wheel works alone: installed elsewhere, it has its configs and its published numbers, and needs no checkout."""

import importlib.metadata
import os
import shutil
import subprocess
import sys
import sysconfig
import venv

import pytest

from tests.conftest import ROOT

pytestmark = pytest.mark.slow

NEEDED = ("setup.py", "pyproject.toml", "README.md", "LICENSE")
MINE = """
from configs import common
def get_config(arg=None):
    config = common.get_config()
    config.seed = 7
    return config
"""


def call(command, cwd, **extra):
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "MOE_JAX_REFERENCE")} | extra
    done = subprocess.run(
        [str(part) for part in command], cwd=cwd, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built from a copy of what it needs, so that no file of an earlier build is in it."""
    source, out = tmp_path_factory.mktemp("source"), tmp_path_factory.mktemp("wheel")
    for name in NEEDED:
        shutil.copy(ROOT / name, source)
    for name in ("moe_jax", "configs"):
        shutil.copytree(ROOT / name, source / name, ignore=shutil.ignore_patterns("__pycache__"))
    setuptools = int(importlib.metadata.version("setuptools").split(".")[0]) if _has("setuptools") else 0
    isolation = ["--no-build-isolation"] if setuptools >= 77 else []  # else pip fetches what pyproject.toml asks for
    call([sys.executable, "-m", "pip", "wheel", "--no-deps", *isolation, "--wheel-dir", out, source], out)
    (built,) = out.glob("moe_jax-*.whl")
    return built


def _has(package):
    return any(True for _ in importlib.metadata.distributions(name=package))


@pytest.fixture(scope="module")
def python(wheel, tmp_path_factory):
    """Of an environment with the wheel, which finds everything else where this one does."""
    folder = tmp_path_factory.mktemp("environment") / "venv"
    venv.create(folder, with_pip=False)
    python = folder / "bin" / "python"
    call([sys.executable, "-m", "pip", "--python", python, "install", "--no-deps", "--no-index", wheel], folder)
    (site,) = folder.glob("lib/python*/site-packages")
    # A path in a .pth file is searched, but its own .pth files, an editable moe_jax among them, are not read.
    (site / "others.pth").write_text(sysconfig.get_paths()["purelib"] + "\n")
    where = call([python, "-c", "import moe_jax; print(moe_jax.__file__)"], folder).strip()
    assert where == str(site / "moe_jax" / "__init__.py")
    return python


@pytest.fixture
def moe_jax(python, tmp_path):
    def run(*flags, **extra):
        return call([python.with_name("moe-jax"), *flags], tmp_path, **extra)

    return run


def test_types_are_announced(python):
    code = "from importlib import resources as r; print(r.files('moe_jax').joinpath('py.typed').is_file())"
    assert call([python, "-c", code], python.parent).strip() == "True"


def test_help(moe_jax):
    assert "reproduce" in moe_jax("--help")


def test_a_sweep_of_a_packaged_config(moe_jax, tmp_path):
    store = f"--config.data.store={tmp_path / 'store'}"
    moe_jax("prepare", "--config=configs/smoke.py:tiny", store)
    assert "8 runs" in moe_jax("plan", "--config=configs/smoke.py:tiny", store)
    moe_jax("sweep", "--config=configs/smoke.py:tiny", store, "--workdir=w", "--jobs=2")
    assert len(list(tmp_path.glob("w/runs/*/result.json"))) == 8


def test_a_config_of_the_users_own_starts_from_the_packaged_one(moe_jax, tmp_path):
    (tmp_path / "sweeps").mkdir()
    (tmp_path / "sweeps" / "mine.py").write_text(MINE)
    assert "-s7" in moe_jax("plan", "--config=sweeps/mine.py", "--config.model.vocab_size=259")


def test_reproduce_has_what_the_paper_printed(moe_jax, tmp_path):
    said = moe_jax("reproduce", "krajewski2024")
    assert "MOE_JAX_REFERENCE does not say where third-party losses are" in said
    assert "Krajewski" in (tmp_path / "reproduced" / "krajewski2024" / "page.html").read_text()
