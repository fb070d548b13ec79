#!/usr/bin/env bash
# The recipe "mini": a small TagSpeech on simulated meetings, on a CPU.
# Calls run.sh in the root of the repository; for its options: ./run.sh --recipe mini --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ./run.sh --recipe mini "$@"
