#!/usr/bin/env bash
# The recipe "alimeeting": far-field meetings of AliMeeting, in Mandarin.
# Hands over to the one stage driver; its options: ./run.sh --recipe alimeeting --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ./run.sh --recipe alimeeting "$@"
