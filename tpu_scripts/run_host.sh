#!/usr/bin/env bash
# Trains one run of a sweep on this host and starts it again when it was preempted or crashed.
#   tpu_scripts/run_host.sh gs://bucket/sweep n25m-d16b-g8-s0 [RESTARTS]
# Codes: 75 (asked to stop) and 128 and above (killed) are started again, at most RESTARTS times (default 100);
# 0 (done), 1 (failed), 2 (bad input) and 3 (diverged) end it.
set -euo pipefail
if [ $# -lt 2 ]; then
  echo "usage: $0 WORKDIR RUN [RESTARTS]" >&2
  exit 2
fi
workdir=$1 run=$2 restarts=${3:-100}
cd "$(dirname "$0")/.."

for ((start = 0; start <= restarts; start++)); do
  command=(.venv/bin/python -m moe_jax.train "--workdir=$workdir" "--run=$run")
  printf '+'; printf ' %q' "${command[@]}"; printf '   (start %d)\n' "$((start + 1))"
  code=0
  "${command[@]}" || code=$?
  if [ "$code" -ne 75 ] && [ "$code" -lt 128 ]; then
    exit "$code"
  fi
  echo "ended with code $code; it goes on from its last checkpoint"
done
echo "$run: $restarts restarts did not finish it" >&2
exit "$code"
