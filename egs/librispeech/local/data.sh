#!/usr/bin/env bash
# The corpus of the recipe "librispeech": stages 0 (download, align, mix) and 1 (manifests).
#
# Usage: egs/librispeech/local/data.sh --stage 0|1 [--data DIR] [--name value]...
#
#   stage 0 writes DIR/corpus: the times of words, pieces of utterances, sessions mixed from them,
#           {train,dev,test,meetings}_{recordings,supervisions}.jsonl.gz
#   stage 1 writes DIR/manifests: copies of these manifests, as in every recipe
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../local/data_options.sh
. local/corpus.sh

case $stage in
  0)
    if [[ -z $corpus_dir ]]; then
      corpus_dir=$data/corpus/LibriSpeech
      say_space "$data/corpus" 30 # archives of train-clean-100, dev-clean and test-clean, and their audio twice
      log "downloading $parts into $data/corpus"
      python - "$data/corpus" "$parts" <<'PYTHON'
import sys
from lhotse.recipes import download_librispeech
try:
    download_librispeech(sys.argv[1], dataset_parts=sys.argv[2].split())
except OSError as error:
    sys.exit(f"LibriSpeech cannot be downloaded ({error}); download it elsewhere: --corpus-dir PATH")
PYTHON
    fi
    if [[ -z $words ]]; then
      words=$data/corpus/words-$(cksum <<<"$corpus_dir $aligner" | cut -d ' ' -f 1).jsonl
      egs/librispeech/local/align_words.py --corpus-dir "$corpus_dir" --output "$words" --aligner "$aligner"
    fi
    egs/librispeech/local/mix_librispeech.py --corpus-dir "$corpus_dir" --words "$words" \
      --output "$data/corpus" --seed "$seed" --jobs "$jobs" --train-groups "$train_groups" \
      --dev-groups "$dev_groups" --test-groups "$test_groups" --meetings "$meetings" \
      --dev-speakers "$dev_speakers" --test-speakers "$test_speakers" \
      --max-speakers "$max_speakers" --max-group "$max_group" --overlap-share "$overlap_share" \
      --longest-overlap "$longest_overlap" --cuttings "$cuttings" --voice-share "$voice_share" \
      --speeds "$speeds"
    if ((spoken_groups > 0)); then
      [[ -n $ami_annotations ]] || die "--spoken-groups $spoken_groups needs --ami-annotations DIR" 2
      sentences=$data/corpus/sentences.txt
      egs/librispeech/local/ami_sentences.py --annotations "$ami_annotations" --output "$sentences"
      egs/librispeech/local/speak_sentences.py --sentences "$sentences" --output "$data/corpus" \
        --groups "$spoken_groups" --seed "$seed" --jobs "$jobs"
    fi
    ;;
  1)
    copy_manifests
    if ((spoken_groups > 0)); then # groups of other voices and sentences, for training alone
      for kind in recordings supervisions; do
        cat "$data"/manifests/{train,spoken}_"$kind".jsonl.gz >"$data/manifests/$kind.partial"
        mv "$data/manifests/$kind.partial" "$data/manifests/train_$kind.jsonl.gz"
      done
    fi
    ;;
esac
