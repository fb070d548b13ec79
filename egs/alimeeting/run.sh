#!/usr/bin/env bash
# The recipe "alimeeting": far-field meetings of AliMeeting, in Mandarin.
# Calls run.sh in the root of the repository; for its options: ./run.sh --recipe alimeeting --help
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
exec ./run.sh --recipe alimeeting "$@"
