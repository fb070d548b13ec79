#!/usr/bin/env bash
# The corpus of the recipe "mini": stages 0 (simulate) and 1 (manifests).
#
# Usage: egs/mini/local/data.sh --stage 0|1 [--data DIR] [--name value]...
#
#   stage 0 writes DIR/corpus: audio, {train,dev,test,meetings}_{recordings,supervisions}.jsonl.gz
#   stage 1 writes DIR/manifests: copies of these manifests, as in every recipe
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../local/data_options.sh

case $stage in
  0)
    tagspeech simulate --output "$data/corpus" --seed "$seed" --jobs "$jobs" \
      --train-groups "$train_groups" --dev-groups "$dev_groups" --test-groups "$test_groups" \
      --meetings "$meetings" --train-from "$train_from" --overlap-share "$overlap_share"
    ;;
  1) copy_manifests ;;
esac
