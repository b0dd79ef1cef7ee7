#!/usr/bin/env bash
# Asks for a TPU slice without jobs, to try things by hand. It stays, and costs, until delete_capacity.sh deletes it.
#   tpu_scripts/create_capacity.sh NAME PROJECT ZONE v5litepod-4 v2-alpha-tpuv5-lite [FLAG…]
# Flags are gcloud's, such as --spot. Jobs in a queue are created by `moe-jax submit --launcher queued-resources`.
set -euo pipefail
if [ $# -lt 5 ]; then
  echo "usage: $0 NAME PROJECT ZONE ACCELERATOR_TYPE RUNTIME_VERSION [FLAG…]" >&2
  exit 2
fi

run() { printf '+ %q' "$1"; printf ' %q' "${@:2}"; printf '\n'; "$@"; }

run gcloud compute tpus queued-resources create "$1" "--node-id=$1" "--project=$2" "--zone=$3" \
  "--accelerator-type=$4" "--runtime-version=$5" --scopes=cloud-platform --async "${@:6}"
run gcloud compute tpus queued-resources describe "$1" "--project=$2" "--zone=$3" '--format=value(state.state)'
