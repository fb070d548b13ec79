#!/usr/bin/env bash
# Trains the parts that mini starts from: two encoders and an LLM, on voices and sentences that are in no split
# of the recipe (conf/pretrain.yaml). Takes hours on two cores. The same command resumes a killed run.
#
# Usage: egs/mini/local/pretrain.sh [--output DIR] [--name VALUE]...
#
#   --output DIR   folder for the parts, in half precision (default: egs/mini/pretrained)
#   --exp DIR      folder for models and logs (default: egs/mini/exp-pretrain)
#   --name VALUE   any other option of ./run.sh, including --set KEY=VALUE
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. utils/log.sh

output=egs/mini/pretrained
exp=egs/mini/exp-pretrain
. local/pretrain_options.sh

./run.sh --recipe mini --from-scratch true --stop-stage 6 \
  --data egs/mini/data-pretrain --exp "$exp" \
  --config egs/mini/conf/pretrain.yaml \
  --train-from pretrain --seed 2 --train-groups 20000 --test-groups 10 --meetings 0 \
  --overlap-share 0.65 \
  ${others[@]+"${others[@]}"}

. ./path.sh
tagspeech export parts --semantic "$exp/semantic/final.pt" --voice "$exp/voice/final.pt" \
  --llm "$exp/tagspeech/pretrained/llm" --output "$output"
log "the parts are in $output"
