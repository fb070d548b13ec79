#!/usr/bin/env bash
# The recipe "digits": conversations mixed from recordings of spoken digits, on a CPU.
# Calls run.sh in the root of the repository; for its options: ./run.sh --recipe digits --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ./run.sh --recipe digits "$@"
