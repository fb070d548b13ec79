# shellcheck shell=bash
# To be sourced, after utils/log.sh: stages 0 and 1 of recipes whose corpus lies in a folder.

# say_space FOLDER GIGABYTES: what a download needs and what is free; stops where that is not enough
say_space() {
  local free have
  mkdir -p "$1"
  free=$(($(df -Pk "$1" | awk 'NR == 2 { print $4 }') / 1000000))
  have=$(($(du -sk "$1" | awk '{ print $1 }') / 1000000))
  log "the corpus needs about $2 GB in $1: $have GB are there, $free GB are free"
  ((have + free >= $2)) || die "$1: needs $(($2 - have)) GB more, $free GB are free;\
 make room, choose another place with --data, or name a corpus: --corpus-dir PATH"
}

# list_files FOLDER LIST OPTIONS PATTERN...: writes which corpus this is, so that a change is seen:
# the folder, the options, size and name of each file whose path fits a pattern. Stops where a
# pattern fits nothing or a file is empty. Files named ._*, which macOS writes, are skipped with a line.
list_files() {
  local folder=$1 list=$2 options=$3 pattern name size hidden=0 first=""
  [[ -d $folder ]] || die "$folder: no such folder; --corpus-dir names the corpus" 2
  folder=$(cd "$folder" && pwd -P)
  [[ $folder != *$'\n'* ]] || die "$folder: must have no newline; rename the folder" 2
  mkdir -p "${list%/*}"
  printf '%s\n' "$folder" "$options" >"$list.partial"
  for pattern in "${@:4}"; do
    while IFS= read -r name; do
      name=$folder/${name#./}
      if [[ ${name##*/} == ._* ]]; then
        hidden=$((hidden + 1))
        first=${first:-$name}
        continue
      fi
      [[ -f $name ]] || die "$name: a name of a file has a newline here; rename it"
      size=$(wc -c <"$name")
      ((size > 0)) || die "$name: is empty; get it again"
      echo "$((size)) ${name#"$folder/"}"
    done < <(cd "$folder" && find -L . -type f -path "./$pattern" | LC_ALL=C sort) >"$list.found"
    [[ -s $list.found ]] || die "$folder: has no $pattern; is it the corpus that README.md describes?"
    cat "$list.found" >>"$list.partial"
  done
  rm -f "$list.found"
  ((hidden == 0)) ||
    log "$folder: $hidden files named ._* are skipped, which macOS writes (the first: $first)"
  mv "$list.partial" "$list"
}

# put_manifests FOLDER PREFIX MANIFESTS DEV: Lhotse's PREFIX_KIND_SPLIT as SPLIT_KIND, DEV as dev
put_manifests() {
  local kind split source
  mkdir -p "$3"
  for kind in recordings supervisions; do
    for split in train dev test; do
      source=$split
      [[ $split == dev ]] && source=$4
      mv "$1/$2_${kind}_$source.jsonl.gz" "$3/${split}_$kind.jsonl.gz"
    done
  done
}

# get_musan MUSAN FOLDER LIST: the noise for training, where MUSAN says "download" or names its folder;
# a download goes into FOLDER. Adds the place to LIST.
get_musan() {
  local place=$1 part
  [[ -n $place ]] || return 0
  if [[ $place == download ]]; then
    say_space "$2" 23 # archive and what is in it
    lhotse download musan "$2"
    place=$2/musan
  fi
  for part in music speech noise; do
    [[ -d $place/$part ]] || die "$place: has no folder $part; --musan names MUSAN's folder, or says download" 2
  done
  echo "musan $(cd "$place" && pwd -P)" >>"$3"
}

# prepare_musan LIST MANIFESTS: musan_recordings_{music,speech,noise} in MANIFESTS, if LIST has its place
prepare_musan() {
  local place
  place=$(sed -n 's/^musan //p' "$1")
  [[ -z $place ]] || lhotse prepare musan "$place" "$2"
}
