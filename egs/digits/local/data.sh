#!/usr/bin/env bash
# The corpus of the recipe "digits": stages 0 (download, mix) and 1 (manifests).
#
# Usage: egs/digits/local/data.sh --stage 0|1 [--data DIR] [--name value]...
#
#   stage 0 writes DIR/corpus: recordings of single digits, sessions mixed from them,
#           {train,dev,test}_{recordings,supervisions}.jsonl.gz
#   stage 1 writes DIR/manifests: copies of these manifests, as in every recipe
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. ../../local/data_options.sh

# download FILE: from $url; resumes in FILE.partial, which a stopped call left
download() {
  local elsewhere="download it elsewhere and give its path: --corpus-dir PATH" message status=0
  command -v curl >/dev/null || die "curl, which downloads $url, is missing; install it, or $elsewhere"
  log "downloading $url"
  mkdir -p "${1%/*}"
  get() {
    curl --silent --show-error --fail --location --retry 3 --connect-timeout 30 \
      "${@:2}" --output "$1.partial" "$url" 2>&1
  }
  message=$(get "$1" --continue-at -) || status=$?
  case $status in
    22 | 33 | 36) # the server cannot resume, or the file was already complete
      rm -f "$1.partial"
      status=0
      message=$(get "$1") || status=$?
      ;;
  esac
  ((status == 0)) || die "$url cannot be downloaded ($(tail -n 1 <<<"$message")); $elsewhere"
  mv "$1.partial" "$1"
}

case $stage in
  0)
    archive=${corpus_dir:-$data/corpus/fsdd.tar.gz}
    [[ -e $archive || -z $corpus_dir ]] || die "--corpus-dir $archive: no such archive or folder" 2
    [[ -e $archive ]] || download "$archive"
    if ! message=$(egs/digits/local/unpack_digits.py "$archive" "$data/corpus/recordings" \
      "$checksum" 2>&1); then
      if [[ -z $corpus_dir ]]; then
        rm -f "$archive"
        message="$message (removed: the same command downloads it again)"
      fi
      die "${message#unpack_digits.py: }"
    fi
    egs/digits/local/mix_digits.py --recordings "$data/corpus/recordings" \
      --output "$data/corpus" --seed "$seed" --jobs "$jobs" --train-groups "$train_groups" \
      --dev-groups "$dev_groups" --test-groups "$test_groups"
    ;;
  1) copy_manifests ;;
esac
