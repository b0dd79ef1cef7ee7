#!/usr/bin/env bash
# Deletes a queued resource and its TPU slice, whatever runs on it. Jobs go on from their checkpoints when submitted again.
#   tpu_scripts/delete_capacity.sh NAME PROJECT ZONE
set -euo pipefail
if [ $# -ne 3 ]; then
  echo "usage: $0 NAME PROJECT ZONE" >&2
  exit 2
fi

run() { printf '+ %q' "$1"; printf ' %q' "${@:2}"; printf '\n'; "$@"; }

run gcloud compute tpus queued-resources delete "$1" "--project=$2" "--zone=$3" --force --quiet
