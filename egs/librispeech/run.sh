#!/usr/bin/env bash
# The recipe "librispeech": conversations mixed from read speech.
# Calls run.sh in the root of the repository; for its options: ./run.sh --recipe librispeech --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ./run.sh --recipe librispeech "$@"
