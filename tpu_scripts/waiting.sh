# shellcheck shell=bash disable=SC2034  # the scripts read `code`
# Sourced by the scripts whose commands take days: bash runs a trap only when its command has ended, unless it waits.
signals=0 child='' code=0
trap 'signals=$((signals + 1)); [ -z "$child" ] || kill -TERM "$child" 2>/dev/null || true' TERM INT

# Runs a command to its end, with our standard input; asked to stop, we ask it to. Sets `code`.
run_and_wait() {
  local before again
  "$@" <&0 &
  child=$! code=0 before=$signals
  wait "$child" || code=$?
  while [ "$signals" -ne "$before" ]; do # a signal ended the wait, perhaps not the command
    before=$signals again=0
    wait "$child" || again=$?
    if [ "$again" -ne 127 ]; then code=$again; fi # 127: the wait before had its code already
  done
  child=''
}
