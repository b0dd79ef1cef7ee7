#!/usr/bin/env bash
# Copies the logs of jobs. For queued resources, whose hosts put them into the workdir:
#   tpu_scripts/fetch_logs.sh gs://bucket/sweep FOLDER
# For one xpk job, by its id (moe-jax status --json has it), from Cloud Logging:
#   tpu_scripts/fetch_logs.sh --xpk PROJECT CLUSTER JOB FOLDER
set -euo pipefail

run() { printf '+ %q' "$1"; printf ' %q' "${@:2}"; printf '\n'; "$@"; }

if [ $# -eq 2 ]; then
  run mkdir -p "$2"
  run gcloud storage rsync --recursive "${1%/}/logs" "$2"
elif [ $# -eq 5 ] && [ "$1" = --xpk ]; then
  filter="resource.type=\"k8s_container\" AND resource.labels.cluster_name=\"$3\""
  filter+=" AND resource.labels.pod_name:\"$4-slice-job-\""
  run mkdir -p "$5"
  printf '+ gcloud logging read %q --project=%q … > %q\n' "$filter" "$2" "$5/$4.txt"
  gcloud logging read "$filter" "--project=$2" --order=asc --freshness=30d \
    '--format=value(timestamp,resource.labels.pod_name,textPayload)' >"$5/$4.txt"
else
  echo "usage: $0 WORKDIR FOLDER, or $0 --xpk PROJECT CLUSTER JOB FOLDER" >&2
  exit 2
fi
