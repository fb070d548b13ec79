#!/usr/bin/env bash
# The recipe "ami": meetings of the AMI corpus, in English, by one of its microphones.
# Hands over to the one stage driver; its options: ./run.sh --recipe ami --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ./run.sh --recipe ami "$@"
