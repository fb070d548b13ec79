#!/usr/bin/env bash
# Trains what the recipe starts from: encoders and an LLM, on voices and sentences that the recipe
# never hears. Hours on two cores; the result is kept in the repository. May be killed and called
# again.
#
# Usage: egs/mini/local/pretrain.sh [--output DIR] [--name value]...   (options of ./run.sh)
#
#   --output DIR   where the parts go (default: egs/mini/pretrained)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. utils/log.sh

output=egs/mini/pretrained
exp=egs/mini/exp-pretrain
_arguments=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h) _help_file="" && . utils/parse_options.sh ;;
    --output | --exp)
      [[ $# -gt 1 ]] || die "option '$1' wants a value" 2
      printf -v "${1#--}" '%s' "$2"
      shift
      ;;
    *) _arguments+=("$1") ;;
  esac
  shift
done

./run.sh --recipe mini --from-scratch true --config egs/mini/conf/pretrain.yaml \
  --train-from pretrain --seed 2 --train-groups 40000 --test-groups 10 --meetings 0 \
  --data egs/mini/data-pretrain --exp "$exp" --stop-stage 6 ${_arguments[@]+"${_arguments[@]}"}

. ./path.sh
tagspeech export parts --semantic "$exp/semantic/final.pt" --voice "$exp/voice/final.pt" \
  --llm "$exp/tagspeech/pretrained/llm" --output "$output"
log "parts in $output"
