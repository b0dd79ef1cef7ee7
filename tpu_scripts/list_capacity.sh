#!/usr/bin/env bash
# Lists the queued resources, requested or held: name, state, type, when it was created.
#   tpu_scripts/list_capacity.sh PROJECT ZONE
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "usage: $0 PROJECT ZONE" >&2
  exit 2
fi

run() { printf '+ %q' "$1"; printf ' %q' "${@:2}"; printf '\n'; "$@"; }

run gcloud compute tpus queued-resources list "--project=$1" "--zone=$2"
