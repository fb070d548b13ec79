#!/usr/bin/env bash
# The corpus of the recipe "ami": stages 0 (download, check) and 1 (manifests).
#
# Usage: egs/ami/local/data.sh --stage 0|1 [--data DIR] [--name value]...
#
#   stage 0 writes DIR/corpus/ami, where no --corpus-dir is given, and DIR/corpus/files.txt
#   stage 1 writes DIR/manifests/{train,dev,test}_{recordings,supervisions}.jsonl.gz, left_out.jsonl
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../local/data_options.sh
. local/corpus.sh

annotations=ami_public_manual_1.6.2
case $mic in
  sdm) audio='*Array1-01.wav' gigabytes=12 ;;
  ihm-mix) audio='*Mix-Headset.wav' gigabytes=12 ;;
  mdm) audio='*Array?-0?.wav' gigabytes=185 ;;
  *) die "--mic must be sdm, ihm-mix or mdm, not '$mic'" 2 ;;
esac

case $stage in
  0)
    corpus=${corpus_dir:-$data/corpus/ami}
    if [[ -z $corpus_dir ]]; then
      say_space "$corpus" "$gigabytes"
      lhotse download ami --mic "$mic" "$corpus"
    fi
    texts=("$annotations.zip") # Lhotse unpacks it
    if [[ -d $corpus/$annotations ]]; then
      texts=("$annotations"/{corpusResources/meetings,segments/*.segments,words/*.words}.xml)
    fi
    list_files "$corpus" "$data/corpus/files.txt" "$mic $partition" "${texts[@]}" "$audio"
    egs/ami/local/check_ami.py "$corpus"
    get_musan "$musan" "$data/corpus" "$data/corpus/files.txt"
    ;;
  1)
    corpus=$(local/usable_corpus.py "$data/corpus/files.txt" "$data/corpus/usable" --first-channel)
    lhotse prepare ami --mic "$mic" --partition "$partition" "$corpus" "$data/corpus/prepared"
    put_manifests "$data/corpus/prepared" "ami-$mic" "$data/manifests" dev
    egs/ami/local/left_out_ami.py "$corpus" "$partition" "$data/manifests" "$data/manifests/$left_out"
    prepare_musan "$data/corpus/files.txt" "$data/manifests"
    ;;
esac
