#!/usr/bin/env bash
# A recipe for a corpus of your own; its name is that of its folder in egs.
# Hands over to the one stage driver; its options: ./run.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
recipe=${PWD##*/}
cd ../..
exec ./run.sh --recipe "$recipe" "$@"
