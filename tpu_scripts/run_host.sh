#!/usr/bin/env bash
# Trains one job of a sweep on this host, and starts it again where that helps. On a pod every host runs it.
#   [RESTARTS=20] tpu_scripts/run_host.sh gs://bucket/sweep --run=n25m-d16b-g8-s0
# The arguments after the workdir are flags of `moe-jax train`. Exit codes, as for every launcher
# (launchers/restarts.py): 1 (failed), 75 (stopped), 42 and those from 127 (a signal) are started again, at most
# RESTARTS times; any other ends it: 0 (done), 2 (bad input), 3 (diverged). When this script is asked to stop (SIGTERM,
# SIGINT), it passes that on and ends with the code of the training, 75.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 WORKDIR FLAG…" >&2
  exit 2
fi
workdir=$1 restarts=${RESTARTS:-20}
shift
cd "$(dirname "$0")/.."
# shellcheck source-path=SCRIPTDIR source=waiting.sh
source tpu_scripts/waiting.sh
export JAX_PLATFORMS=${JAX_PLATFORMS:-tpu,cpu} # never on the CPU alone

command=(.venv/bin/python -m moe_jax train --multihost "--workdir=$workdir" "$@")
for ((start = 0; start <= restarts; start++)); do
  printf '+'; printf ' %q' "${command[@]}"; printf '   (start %d)\n' "$((start + 1))"
  run_and_wait "${command[@]}"
  if [ "$signals" -gt 0 ]; then exit "$code"; fi
  case $code in 1 | 42 | 75 | 12[7-9] | 1[3-9]? | 2??) ;; *) exit "$code" ;; esac
  echo "ended with code $code; it goes on from its last checkpoint"
done
echo "$*: $restarts restarts did not finish it" >&2
exit "$code"
