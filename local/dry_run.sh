# shellcheck shell=bash disable=SC2154
# To be sourced by run.sh --dry-run, after local/stage.sh and local/parts.sh, whose functions these
# replace: each stage is said, with its command and its reckoned time; nothing runs or is written.

keep_marks_in() { # without a lock: nothing is changed
  stage_marks=$1/.stages
}

begin_stages() {
  stage_first=${2:-0} stage_last=$3 stage_again=$2 stage_config=$4
  keep_marks_in "$1"
  local hours=()
  [[ -z $plan_hours ]] || hours=(--hours "$plan_hours")
  [[ ! -f $data/groups/test.jsonl.gz ]] || hours=(--groups "$data/groups")
  plan=""
  if ((${#hours[@]})); then
    plan=$(tagspeech plan "${with_config[@]}" "${hours[@]}" --form lines) || plan=""
  fi
}

run_stage() {
  local number title name given declaration inputs outputs command path reason="" again=()
  read_declaration "$@"
  set -- "${command[@]}"
  ((number >= stage_first && number <= stage_last)) || return 0
  if [[ -n $given ]]; then
    echo "stage $number: $title: skipped: $given takes its place"
    return 0
  fi
  for path in ${inputs[@]+"${inputs[@]}"}; do
    if [[ -n $(maker_of "$path") ]]; then
      reason="its input $path will be new"
    elif [[ ! -e $path ]]; then
      reason="its input $path is missing here"
    else
      continue
    fi
    break
  done
  if [[ -z $reason ]]; then
    [[ $number != "$stage_again" ]] || again=(--again)
    reason=$(mark check --only-look --marks "$stage_marks" --name "$name" --config "$stage_config" \
      ${again[@]+"${again[@]}"} ${declaration[@]+"${declaration[@]}"})
    if [[ $reason == "done" ]]; then
      echo "stage $number: $title: done already"
      return 0
    fi
  fi
  for path in ${outputs[@]+"${outputs[@]}"}; do
    made_paths+=("$path")
    made_by+=("$number ($title)")
  done
  echo "stage $number: $title: would run (${reason#begin: })"
  if [[ $(type -t "$1") == function ]]; then
    (
      # shellcheck disable=SC2329 # the stage's function calls it
      tagspeech() { shown tagspeech "$@"; }
      # shellcheck disable=SC2034 # or this
      work=(shown "${work[@]}")
      "$@"
    )
  else
    shown "$@"
  fi
  name=$(sed -n "s/^$number:	//p" <<<"$plan")
  echo "  reckoned: ${name:-unknown (tagspeech plan, for the hours of the groups that stage 2 makes)}"
}

shown() {
  printf '  $'
  printf ' %q' "$@"
  echo
}

skip_stage() {
  (($1 < stage_first || $1 > stage_last)) || echo "stage $1: $2: skipped: $3"
}
