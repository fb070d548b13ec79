#!/usr/bin/env bash
# Trains the TagSpeech of this recipe on all speech at hand, and writes it as a small folder: what training changed,
# in half precision; frozen parts stay in their packages. The same command resumes a killed run, on a GPU if there is one.
#
# Usage: egs/librispeech/local/pretrain.sh --corpus-dir DIR [--output DIR] [--name VALUE]...
#
#   --output DIR   folder for the model (default: egs/librispeech/pretrained)
#   --exp DIR      folder for models and logs (default: egs/librispeech/exp-pretrain)
#   --name VALUE   any other option of ./run.sh, such as --words FILE, --spoken-groups 5000 with
#                  --ami-annotations DIR, or --set train.max_steps=8000
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../../.."
. utils/log.sh

output=egs/librispeech/pretrained
exp=egs/librispeech/exp-pretrain
. local/pretrain_options.sh

./run.sh --recipe librispeech --exp "$exp" ${others[@]+"${others[@]}"}

. ./path.sh
part() { python -c "import json, sys; print(json.load(open(sys.argv[1]))[sys.argv[2]]['name'])" "$exp/parts.json" "$1"; }
tagspeech export compact --model "$exp/tagspeech/pretrained" --output "$output" \
  --semantic-encoder "$(part semantic_encoder)" --voice-encoder "$(part voice_encoder)"
log "the model is in $output: $(du -sh "$output" | cut -f 1)"
