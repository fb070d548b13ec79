# shellcheck shell=bash
# To be sourced by run.sh, after utils/log.sh: one stage at a time, done once, safe to kill.
#
#   begin_stages DIR FIRST LAST CONFIG    DIR: folder of the experiment; FIRST: empty for all that is
#             not done; CONFIG: what `tagspeech config --stages` prints
#   keep_marks_in DIR                     of the stages that follow; experiments may share DIR
#   run_stage N TITLE [--inputs PATH...] [--outputs PATH...] [--work DIR...] [--options STRING]
#             [--given FILE] -- COMMAND [ARGUMENT...]
#
# A stage from FIRST to LAST is run unless local/mark.py finds it done; FIRST itself is run even if it
# is done. It depends on the content of its inputs, on the configuration as tagspeech/dependencies.py
# says, and on the options string; what only changes speed stays out of these. Its work folders hold
# nothing but the results of one attempt, partial ones too: a stopped stage goes on in them, otherwise
# they are moved aside first. A FILE that is given, unless it is empty, takes the place of the stage.
# The command's output goes to the terminal and to DIR/log/NN-title.log; its mark lies in DIR/.stages
# of `keep_marks_in`. Relative paths are relative to the root of the repository.
#
# Each folder of marks has a lock, DIR/.stages/lock. The run holds that of the experiment alone. A folder
# that experiments share is locked for one run alone during its stages, and for all that read it afterwards:
# another run waits for the stages, and is refused if it has to redo one of them meanwhile.

stage_group="" # process group of the stage at work
shared_lock=""  # lock of the folder of marks, if it is not that of the experiment
shared_descriptor=9
lock_mode=""   # shared: other runs read that folder
made_paths=()  # path made_paths[i] is an output of stage made_by[i]
made_by=()

mark() {
  python3 -I -S local/mark.py "$@"
}

begin_stages() {
  stage_lock=$1/.stages/lock
  stage_logs=$1/log
  stage_first=${2:-0}
  stage_last=$3
  stage_again=$2 # the stage that is run even if it is done
  stage_config=$4
  mkdir -p "$1/.stages" "$stage_logs" || die "$1: cannot be written"
  take_lock 9 "$stage_lock"
  trap 'stop_stage 129' HUP
  trap 'stop_stage 130' INT
  trap 'stop_stage 143' TERM
}

keep_marks_in() {
  stage_marks=$1/.stages
  if [[ -n $shared_lock ]]; then
    [[ ! $stage_marks/lock -ef $shared_lock ]] || return 0
    # The stages of the folder before have ended: this run only reads it from here on.
    mark lock "$shared_descriptor" --shared --wait 60 >/dev/null || die "another run changes ${shared_lock%/.stages/lock}"
    shared_lock=""
  fi
  # A folder that cannot be written has nothing to lock: its stages are done, or fail.
  if mkdir -p "$stage_marks" 2>/dev/null && [[ -w $stage_marks && ! $stage_marks/lock -ef $stage_lock ]]; then
    shared_lock=$stage_marks/lock
    shared_descriptor=$((shared_descriptor - 1))
    take_lock "$shared_descriptor" "$shared_lock" --or-shared
  fi
}

# take_lock DESCRIPTOR LOCK [--or-shared]: two runs in one folder would write over each other. The
# descriptor carries the lock; the processes of a stage inherit it, so that those a killed run left behind
# are noticed, and ended. With --or-shared, other runs may read the folder, and a run at work in it is waited
# for; lock_mode then says which of the locks it is, `shared` or nothing.
take_lock() {
  local owner group host is_waiting=false folder=${2%/.stages/lock}
  eval "exec $1>>\"\$2\""
  until lock_mode=$(mark lock "$@"); do
    owner="" group="" host=""
    read -r owner group <"$2" || true
    read -r host 2>/dev/null <"${2%/lock}/host" || true
    if [[ -n $owner && ${host:-$HOSTNAME} == "$HOSTNAME" ]] && ! kill -0 "$owner" 2>/dev/null; then
      log "process $owner was killed and left its stage at work: ending it"
      [[ -z $group ]] || kill -KILL -- "-$group" 2>/dev/null || true
      lock_mode=$(mark lock "$@" --wait 10) ||
        die "what process $owner left behind does not end; end it by hand"
      break
    fi
    owner="process ${owner:-unknown}"
    [[ ${host:-$HOSTNAME} == "$HOSTNAME" ]] || owner+=" on $host"
    [[ -n ${3:-} ]] || die "another run ($owner) is at work in $folder"
    [[ $is_waiting == true ]] || log "another run ($owner) is at work in $folder: waiting for it"
    is_waiting=true
    sleep 1
  done
  if [[ $lock_mode != shared ]]; then
    { echo "$HOSTNAME" >"${2%/lock}/host"; } 2>/dev/null || true
    note_owner
  fi
}

stop_stage() {
  trap - HUP INT TERM
  if [[ -n $stage_group ]]; then
    kill -TERM -- "-$stage_group" 2>/dev/null || true
    wait "$stage_group" 2>/dev/null || true
  fi
  die "stopped; the same command goes on from here" "$1"
}

# read_declaration NUMBER TITLE ... -- COMMAND: the arguments of run_stage, into the variables number, title,
# name, given, declaration, inputs, outputs and command, which the caller has made its own
read_declaration() {
  local list=""
  number=$1 title=$2 given="" declaration=() inputs=() outputs=()
  name=$(printf '%02d-%s' "$1" "$(echo "$2" | tr 'A-Z ' 'a-z-')")
  shift 2
  while [[ $1 != -- ]]; do
    if [[ $1 == --given ]]; then
      given=$2
      shift 2
      continue
    fi
    declaration+=("$1")
    case $1 in
      --inputs | --outputs | --work | --options) list=$1 ;;
      *) case $list in
        --inputs) inputs+=("$1") ;;
        --outputs) outputs+=("$1") ;;
      esac ;;
    esac
    shift
  done
  command=("${@:2}")
}

run_stage() {
  local number title name given declaration inputs outputs command path
  read_declaration "$@"
  set -- "${command[@]}"

  if [[ -z $given ]]; then
    for path in ${outputs[@]+"${outputs[@]}"}; do
      made_paths+=("$path")
      made_by+=("$number ($title)")
    done
  fi
  if ((number < stage_first || number > stage_last)); then
    return 0
  fi
  if [[ -n $given ]]; then
    log "stage $number: $title: $given, trained before"
    return 0
  fi
  for path in ${inputs[@]+"${inputs[@]}"}; do
    [[ -e $path ]] || die "stage $number ($title): its input $path is missing$(maker_of "$path")"
  done

  local again=() answer
  if [[ $number == "$stage_again" ]]; then
    again=(--again)
  fi
  if [[ -n $shared_lock && $lock_mode == shared ]]; then
    answer=$(mark check --only-look --marks "$stage_marks" --name "$name" --config "$stage_config" \
      ${again[@]+"${again[@]}"} ${declaration[@]+"${declaration[@]}"} 2>&1) ||
      die "stage $number ($title) cannot start: $answer"
    if [[ $answer != "done" ]]; then
      mark lock "$shared_descriptor" >/dev/null ||
        die "stage $number ($title) must be done ($answer), but another run uses ${stage_marks%/.stages}: wait \
until it has ended, or name another folder"
      lock_mode=""
      note_owner
    fi
  fi
  answer=$(mark check --marks "$stage_marks" --name "$name" --config "$stage_config" \
    ${again[@]+"${again[@]}"} ${declaration[@]+"${declaration[@]}"} 2>&1) ||
    die "stage $number ($title) cannot start: $answer"
  if [[ $answer == "done" ]]; then
    log "stage $number: $title: done already"
    return 0
  fi
  log "stage $number: $title ($answer)"
  run_logged "$stage_logs/$name.log" "$@"
  if ((stage_status != 0)); then
    answer=$(mark reason "$stage_logs/$name.log" --start "$stage_log_start" --code "$stage_status")
    die "stage $number ($title) failed: $answer; exit code $stage_status; log: \
$stage_logs/$name.log" "$stage_status"
  fi
  answer=$(mark finish --marks "$stage_marks" --name "$name" 2>&1) ||
    die "stage $number ($title) failed: $answer; log: $stage_logs/$name.log"
}

# run_logged LOG COMMAND...: in a process group of its own, so that a stop reaches all of it. Sets
# stage_status, and stage_log_start: the bytes that the log held before the command's own output. To be
# called on its own: behind || or in an `if`, bash would ignore `set -e`.
run_logged() {
  local log=$1
  shift
  { date '+%Y-%m-%d %H:%M:%S' && printf '%q ' "$@" && echo; } >>"$log" || die "$log: cannot be written"
  stage_log_start=$(($(wc -c <"$log")))
  set -m
  (
    set +em
    # shellcheck disable=SC2016
    note_owner "$(exec sh -c 'echo $PPID')" # its own number; bash 3.2 has no variable for it
    (
      set -e
      "$@"
    ) 2>&1 | tee -a "$log"
    codes=("${PIPESTATUS[@]}")
    exit "$((codes[0] ? codes[0] : codes[1]))"
  ) </dev/null &
  stage_group=$!
  set +m
  stage_status=0
  wait "$stage_group" 2>/dev/null || stage_status=$?
  stage_group=""
  note_owner
}

# note_owner [GROUP]: who works here, for take_lock of the next run. A stage says it itself: a driver
# that is killed as it starts one could not. On a full disk the stage fails, not this.
note_owner() {
  { echo "$$ ${1:-}" >"$stage_lock"; } 2>/dev/null || true
  if [[ -n $shared_lock && $lock_mode != shared ]]; then
    { echo "$$ ${1:-}" >"$shared_lock"; } 2>/dev/null || true
  fi
}

# maker_of PATH: words on the stage that makes it, or makes something in it
maker_of() {
  local i
  for ((i = 0; i < ${#made_paths[@]}; i++)); do
    if [[ ${made_paths[i]} == "$1" || ${made_paths[i]} == "$1"/* ]]; then
      echo "; stage ${made_by[i]} makes it: --stage ${made_by[i]%% *}"
      return
    fi
  done
}
