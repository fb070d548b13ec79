#!/usr/bin/env bash
# Runs a verb of tagspeech in several processes on this machine, with torchrun. Has the usage of utils/slurm.sh.
#
# Usage: utils/local.sh [--processes N] -- VERB ARGUMENTS...
#
#   utils/local.sh --processes 4 -- train tagspeech --config conf/tagspeech.yaml --output exp/run ...
#
#   --processes N   number of processes (default: 1)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. utils/log.sh

processes=1
. utils/split_options.sh

. ./path.sh
exec torchrun --standalone --nproc-per-node "$processes" -m tagspeech "${verb[@]}"
