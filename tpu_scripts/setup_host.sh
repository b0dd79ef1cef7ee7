#!/usr/bin/env bash
# Sets up a TPU VM's host: a virtual environment in .venv with this checkout, JAX for TPUs and gs:// support.
#   [PYTHON=python3.11] tpu_scripts/setup_host.sh
# moe_jax needs Python 3.11 to 3.13. Where the image has none of these, uv brings one.
set -euo pipefail
cd "$(dirname "$0")/.."

run() { printf '+ %q' "$1"; printf ' %q' "${@:2}"; printf '\n'; "$@"; }

fits() { "$1" -c 'import sys, ensurepip; raise SystemExit(not (3, 11) <= sys.version_info < (3, 14))' 2>/dev/null; }

if ! [ -x .venv/bin/python ]; then
  python=''
  for candidate in ${PYTHON:+"$PYTHON"} python3.11 python3.12 python3.13 python3; do
    if fits "$candidate"; then python=$candidate && break; fi
  done
  if [ -n "$python" ]; then
    run "$python" -m venv .venv
  else
    run python3 -m pip install --quiet --user uv
    run python3 -m uv venv --quiet --seed --python 3.11 .venv
  fi
fi
# Which libtpu goes with this JAX, JAX says; constraints.txt may have the one that `plan` compiles with.
grep -v '^libtpu==' constraints.txt >.venv/constraints.txt
run .venv/bin/python -m pip install --quiet --constraint .venv/constraints.txt --editable '.[gcs]' 'jax[tpu]'
run .venv/bin/python -c 'import jax; print(jax.local_device_count(), "devices here:", jax.local_devices()[0].device_kind)'
