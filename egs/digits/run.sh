#!/usr/bin/env bash
# The recipe "digits": conversations mixed from real recordings of spoken digits, on a CPU.
# Hands over to the one stage driver; its options: ./run.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ./run.sh --recipe digits "$@"
