#!/usr/bin/env bash
# Works through a list of jobs on this host; on a pod every host does, in the same order. A line of standard input is a
# job: flags of `moe-jax train`, as --run=NAME. One that fails is passed over, and one that is done ends at once.
#   [ENDED=FILE] tpu_scripts/work_queue.sh gs://bucket/sweep < jobs
# ENDED keeps how each job ended here. A host that comes back passes over those, the failed ones too: on a pod the others
# are past them, and would not meet it there.
# Ends with 0 where every job ended with 0 or 3 (diverged), with 75 where it was asked to stop, else with 1.
set -euo pipefail
if [ $# -ne 1 ]; then
  echo "usage: $0 WORKDIR < JOBS" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=waiting.sh
source "$here/waiting.sh"

failed=0 jobs=() record=${ENDED:-}
declare -A ended=()
if [ -f "$record" ]; then
  while read -r code job; do if [ -n "$job" ]; then ended[$job]=$code; fi; done <"$record"
fi
mapfile -t jobs
for job in "${jobs[@]}"; do
  if [ -n "$job" ] && [ -n "${ended[$job]:-}" ]; then
    code=${ended[$job]}
    echo "$job: has ended with code $code before"
  else
    read -r -a flags <<<"$job"
    run_and_wait "$here/run_host.sh" "$1" "${flags[@]}"
    echo "$job: ended with code $code"
    if [ "$signals" -gt 0 ]; then exit 75; fi
    if [ -n "$record" ]; then echo "$code $job" >>"$record"; fi
  fi
  case $code in 0 | 3) ;; *) failed=$((failed + 1)) ;; esac
done
echo "the queue has ended: ${#jobs[@]} jobs, $failed failed"
if [ "$failed" -gt 0 ]; then exit 1; fi
