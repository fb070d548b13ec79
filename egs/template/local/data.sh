#!/usr/bin/env bash
# The corpus of your own recipe: stages 0 (import) and 1 (manifests).
#
# Usage: egs/NAME/local/data.sh --stage 0|1 [--data DIR] [--name value]...
#
#   stage 0 writes DIR/corpus: {train,dev,test}_{recordings,supervisions}.jsonl.gz, rejected.jsonl
#   stage 1 writes DIR/manifests: copies of these manifests, as in every recipe
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../local/data_options.sh

# in_corpus PATH: prints PATH; a relative path is relative to the corpus
in_corpus() {
  case $1 in
    /*) echo "$1" ;;
    *) echo "$corpus_dir/$1" ;;
  esac
}

case $stage in
  0)
    [[ -n $corpus_dir ]] || die "no corpus: --corpus-dir must name its folder, or set it in $_help_file" 2
    [[ -d $corpus_dir ]] || die "--corpus-dir $corpus_dir: no such folder" 2
    options=(--split-by "$split_by" --max-rejected "$max_rejected")
    [[ -z $channel ]] || options+=(--channel "$channel")
    if [[ $kaldi == true ]]; then
      options+=(--kaldi "$corpus_dir" --wav-root "$wav_root")
    else
      options+=(--audio "$(in_corpus "$audio")" --words "$(in_corpus "$words")")
      [[ -z $speakers ]] || options+=(--speakers "$(in_corpus "$speakers")")
    fi
    [[ -z $genders ]] || options+=(--genders "$(in_corpus "$genders")")
    [[ $local_speakers == false ]] || options+=(--local-speakers)
    [[ $skip_unmatched == false ]] || options+=(--skip-unmatched)
    case $split_by in
      lists) options+=(--lists "$(in_corpus "$lists")") ;;
      shares) options+=(--shares "$shares" --seed "$seed") ;;
    esac
    tagspeech import --verbose --output "$data/corpus" "${options[@]}"
    ;;
  1) copy_manifests ;;
esac
