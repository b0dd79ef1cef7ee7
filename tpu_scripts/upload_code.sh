#!/usr/bin/env bash
# Puts the code of a commit where hosts find it. What is not committed is not sent.
#   tpu_scripts/upload_code.sh COMMIT gs://bucket/sweep/code/0123456789ab.tar.gz
set -euo pipefail
if [ $# -ne 2 ]; then
  echo "usage: $0 COMMIT gs://…/NAME.tar.gz" >&2
  exit 2
fi
cd "$(dirname "$0")/.."
if [ -n "$(git status --porcelain --untracked-files=no)" ]; then
  echo "warning: this checkout has changes that are not committed; the hosts get $1 without them" >&2
fi
printf '+ git archive --format=tar.gz %q | gcloud storage cp - %q\n' "$1" "$2"
git archive --format=tar.gz "$1" | gcloud storage cp - "$2"
