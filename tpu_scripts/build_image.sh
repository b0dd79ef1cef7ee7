#!/usr/bin/env bash
# Builds the image for xpk of the commit that is checked out, and pushes it. What is not committed is not in it.
#   tpu_scripts/build_image.sh us-docker.pkg.dev/PROJECT/REPOSITORY/moe_jax:TAG
set -euo pipefail
if [ $# -ne 1 ]; then
  echo "usage: $0 IMAGE" >&2
  exit 2
fi
cd "$(dirname "$0")/.."
commit=$(git rev-parse HEAD)
if [ -n "$(git status --porcelain --untracked-files=no)" ]; then
  echo "warning: this checkout has changes that are not committed; the image gets $commit without them" >&2
fi

run() { printf '+ %q' "$1"; printf ' %q' "${@:2}"; printf '\n'; "$@"; }

printf '+ git archive %q | docker build …\n' "$commit"
git archive "$commit" | docker build --platform=linux/amd64 --file=tpu_scripts/Dockerfile \
  "--build-arg=COMMIT=$commit" "--tag=$1" -
run docker push "$1"
