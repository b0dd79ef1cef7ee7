#!/usr/bin/env bash
# What every host of a queued resource runs as root when it starts: `submit --launcher queued-resources` gives it as
# startup-script, with what it needs as metadata. It fetches the code, sets the host up and works through the jobs.
# The rule for the capacity: worker 0 deletes the queued resource when its jobs have ended, however they ended; any
# worker deletes it when the set-up fails, for nothing runs without it. Only being asked to stop deletes nothing: then
# the capacity is being taken away, or the host comes back and starts here again.
set -euo pipefail
metadata=${MOE_JAX_METADATA:-http://metadata.google.internal/computeMetadata/v1/instance/attributes}
home=${MOE_JAX_HOME:-/opt/moe_jax}
log=${MOE_JAX_LOG:-/var/log/moe_jax.log}
exec > >(tee -a "$log") 2>&1

run() { printf '+ %q' "$1"; printf ' %q' "${@:2}"; printf '\n'; "$@"; }
attribute() { curl --silent --show-error --fail --retry 5 --header 'Metadata-Flavor: Google' "$metadata/$1"; }

workdir=$(attribute moe-jax-workdir)
queue=$(attribute moe-jax-queue)
worker=$(attribute agent-worker-number)
signals=0 ready='' code=1
trap 'signals=1; exit 75' TERM INT

finish() {
  trap - EXIT
  run gcloud storage cp "$log" "${workdir%/}/logs/$queue-$worker.txt" || true
  if [ "$signals" -eq 0 ] && { [ -z "$ready" ] || [ "$worker" -eq 0 ]; }; then
    run gcloud compute tpus queued-resources delete "$queue" "--project=$(attribute moe-jax-project)" \
      "--zone=$(attribute moe-jax-zone)" --force --quiet --async ||
      echo "$queue: could not delete itself, and it costs: tpu_scripts/delete_capacity.sh does" >&2
  fi
}
trap 'finish; exit "$code"' EXIT

run mkdir -p "$home"
run gcloud storage cp "$(attribute moe-jax-code)" "$home/code.tar.gz"
run tar -xzf "$home/code.tar.gz" -C "$home"
MOE_JAX_COMMIT=$(attribute moe-jax-commit)
RESTARTS=$(attribute moe-jax-restarts)
export MOE_JAX_COMMIT RESTARTS
"$home/tpu_scripts/setup_host.sh"
attribute moe-jax-jobs | tr ';' '\n' >"$home/jobs"
export ENDED="$home/ended-$queue"
ready=yes

# shellcheck source-path=SCRIPTDIR source=waiting.sh
source "$home/tpu_scripts/waiting.sh"
run_and_wait "$home/tpu_scripts/work_queue.sh" "$workdir" <"$home/jobs"
