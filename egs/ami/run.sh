#!/usr/bin/env bash
# The recipe "ami": meetings of the AMI corpus, in English, from one choice of microphones.
# Calls run.sh in the root of the repository; for its options: ./run.sh --recipe ami --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ./run.sh --recipe ami "$@"
