#!/usr/bin/env bash
# Works through a list of jobs on this host; on a pod every host does, in the same order. A line of standard input is a
# job: flags of `moe-jax train`, as --run=NAME. One that fails is passed over, and one that is done ends at once.
#   tpu_scripts/work_queue.sh gs://bucket/sweep < jobs
# Ends with 0 where every job ended with 0 or 3 (diverged), with 75 where it was asked to stop, else with 1.
set -euo pipefail
if [ $# -ne 1 ]; then
  echo "usage: $0 WORKDIR < JOBS" >&2
  exit 2
fi
here=$(cd "$(dirname "$0")" && pwd)
# shellcheck source-path=SCRIPTDIR source=waiting.sh
source "$here/waiting.sh"

failed=0 jobs=()
mapfile -t jobs
for job in "${jobs[@]}"; do
  read -r -a flags <<<"$job"
  run_and_wait "$here/run_host.sh" "$1" "${flags[@]}"
  echo "$job: ended with code $code"
  if [ "$signals" -gt 0 ]; then exit 75; fi
  case $code in 0 | 3) ;; *) failed=$((failed + 1)) ;; esac
done
echo "the queue has ended: ${#jobs[@]} jobs, $failed failed"
if [ "$failed" -gt 0 ]; then exit 1; fi
