#!/usr/bin/env bash
# The recipe "mini": a small TagSpeech from nothing, on simulated meetings, on a CPU.
# Hands over to the one stage driver; its options: ./run.sh --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ./run.sh --recipe mini "$@"
