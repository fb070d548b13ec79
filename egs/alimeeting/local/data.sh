#!/usr/bin/env bash
# The corpus of the recipe "alimeeting": stages 0 (download, check) and 1 (manifests).
#
# Usage: egs/alimeeting/local/data.sh --stage 0|1 [--data DIR] [--name value]...
#
#   stage 0 writes DIR/corpus/alimeeting, where no --corpus-dir is given, and DIR/corpus/files.txt
#   stage 1 writes DIR/manifests/{train,dev,test}_{recordings,supervisions}.jsonl.gz, left_out.jsonl
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../local/data_options.sh
. local/corpus.sh

gigabytes=250 # archives, which Lhotse keeps, and what is in them
[[ $mic == sdm || $mic == mdm ]] || die "--mic must be sdm or mdm, not '$mic'" 2

case $stage in
  0)
    corpus=${corpus_dir:-$data/corpus/alimeeting}
    if [[ -z $corpus_dir ]]; then
      say_space "$corpus" "$gigabytes"
      lhotse download ali-meeting "$corpus"
    fi
    list_files "$corpus" "$data/corpus/files.txt" "$mic" \
      "*Train_Ali_far/textgrid_dir/*.TextGrid" "*Train_Ali_far/audio_dir/*.wav" \
      "*Eval_Ali_far/textgrid_dir/*.TextGrid" "*Eval_Ali_far/audio_dir/*.wav" \
      "*Test_Ali_far/textgrid_dir/*.TextGrid" "*Test_Ali_far/audio_dir/*.wav"
    sed -n 's|.*/\(.*\)\.TextGrid$|\1|p' "$data/corpus/files.txt" | while IFS= read -r meeting; do
      grep -q "audio_dir/$meeting.*\.wav$" "$data/corpus/files.txt" ||
        die "$corpus: $meeting.TextGrid: has no audio, $meeting*.wav; get it again"
    done
    get_musan "$musan" "$data/corpus" "$data/corpus/files.txt"
    ;;
  1)
    corpus=$(local/usable_corpus.py "$data/corpus/files.txt" "$data/corpus/usable")
    lhotse prepare ali-meeting --mic "$mic" "$corpus" "$data/corpus/prepared"
    put_manifests "$data/corpus/prepared" "alimeeting-$mic" "$data/manifests" eval
    egs/alimeeting/local/left_out_alimeeting.py "$corpus" "$data/manifests" "$data/manifests/$left_out"
    prepare_musan "$data/corpus/files.txt" "$data/manifests"
    ;;
esac
