#!/usr/bin/env bash
# A recipe for your own corpus, named after its folder in egs.
# Calls run.sh in the root of the repository; for its options: ./run.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
recipe=${PWD##*/}
cd ../..
exec ./run.sh --recipe "$recipe" "$@"
