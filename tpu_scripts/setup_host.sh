#!/usr/bin/env bash
# Sets up a TPU VM's host: a virtual environment in .venv with this checkout, JAX for TPUs and gs:// support.
#   tpu_scripts/setup_host.sh
set -euo pipefail
cd "$(dirname "$0")/.."

run() { printf '+ %q' "$1"; printf ' %q' "${@:2}"; printf '\n'; "$@"; }

python=${PYTHON:-python3}
test -x .venv/bin/python || run "$python" -m venv .venv
run .venv/bin/python -m pip install --quiet --constraint constraints.txt --editable '.[gcs]' 'jax[tpu]'
run .venv/bin/python -c 'import jax; print(jax.device_count(), "devices:", jax.devices()[0].device_kind)'
