# shellcheck shell=bash disable=SC2034,SC2154
# To be sourced by run.sh, after utils/log.sh: the pretrained parts and the machine.
#
#   find_parts     what stages 3 to 6 start from must be there, and fit, before the long work. Sets
#                  semantic_init ... voice_encoder, new_llm, llm_folder, model; adds to with_config
#                  what the configuration must say besides
#   find_files     sets what the stages read and make: corpus, manifests, data_options and others
#   find_machine   resolves processes=auto, and sets `work`: how verbs that compute are called
#   skip_stage N TITLE REASON   says that a stage between --stage and --stop-stage is not needed

skip_stage() {
  (($1 < stage_first || $1 > stage_last)) || log "stage $1: $2: skipped: $3"
}

find_parts() {
  local given=(--record "$exp/parts.json" --new-llm "$exp/llm/pretrained") name line answer
  [[ $offline == false ]] || given+=(--offline)
  [[ $from_scratch == false ]] || given+=(--from-scratch)
  ((stop_stage > 2 && ${stage:-0} < 7)) || given+=(--no-search)
  [[ $dry_run == false ]] || given+=(--names)
  for name in init_from llm semantic_init semantic_units semantic_encoder voice_init voice_encoder; do
    [[ -z ${!name} ]] || given+=("--${name//_/-}" "${!name}")
  done
  if [[ -n $model ]]; then
    [[ -z $init_from ]] || die "--model is decoded, --init-from is trained on: leave out one of them" 2
    [[ $dry_run == true ]] || given+=(--model "$model")
    log "--model $model: stages 3 to 6 are skipped: it is trained"
  fi
  answer=$(tagspeech parts "${with_config[@]}" "${given[@]}")
  semantic_init="" semantic_units="" semantic_encoder="" voice_init="" voice_encoder=""
  new_llm=false llm_folder="" model_commit=""
  while IFS= read -r line; do
    case $line in
      "") ;;
      semantic_*=* | voice_*=* | new_llm=* | llm_folder=* | model=* | model_commit=*) printf -v "${line%%=*}" %s "${line#*=}" ;;
      *) with_config+=(--set "$line") ;;
    esac
  done <<<"$answer"
  # All that the stages need is here, but for an LLM that a model of --init-from only names, and for
  # what stage 0 downloads.
  data_offline=${HF_HUB_OFFLINE:-0}
  [[ $offline == false ]] || data_offline=1
  [[ -n $init_from$model && $offline == false ]] || export HF_HUB_OFFLINE=1
}

find_files() {
  local name
  data_options=() # what data.sh is called with
  for name in $data_variables; do
    data_options+=("--${name//_/-}" "${!name}")
  done
  corpus=()
  for name in $corpus_files; do
    corpus+=("$data/corpus/$name")
  done
  manifests=("$data"/manifests/{train,dev,test}_{recordings,supervisions}.jsonl.gz)
  left_out=${left_out:+"$data/manifests/$left_out"}
  semantic=${semantic_encoder:-$encoders/semantic/final.pt}
  voice=${voice_encoder:-$encoders/voice/final.pt}
  begin_with=("$semantic" "$voice")
  begin_options=(--semantic "$semantic" --voice "$voice")
  if [[ -n $init_from ]]; then
    begin_with=("$init_from")
    begin_options=(--init-from "$init_from")
  fi
}

# --device cpu hides the GPUs from all stages. Where the machine has GPUs, processes=auto means a
# process for each; where it has none, one.
find_machine() {
  [[ $device =~ ^(auto|cpu|cuda)$ ]] || die "--device must be auto, cpu or cuda, not '$device'; \
CUDA_VISIBLE_DEVICES picks GPUs" 2
  [[ $device != cpu ]] || export CUDA_VISIBLE_DEVICES=""
  work=(tagspeech)
  case $launcher in
    local) ;;
    slurm) find_cluster ;;
    *) die "--launcher must be local or slurm, not '$launcher'" 2 ;;
  esac
  if [[ $processes == auto ]]; then
    processes=$(tagspeech gpus)
    log "processes=auto: $processes GPUs here; training processes: $((processes ? processes : 1))"
    ((processes)) || processes=1
  fi
  # shellcheck source=local/dry_run.sh
  [[ $dry_run == false ]] || . local/dry_run.sh
}

# --launcher slurm: a job for each stage from 3 to 7 and for stage 10, which utils/slurm.sh waits for. The
# processes of a training are those of all nodes.
find_cluster() {
  local name each
  command -v sbatch >/dev/null || die "--launcher slurm: sbatch is not here; start it where jobs are submitted" 2
  for name in nodes gpus cpus; do
    [[ ${!name} =~ ^[0-9]+$ ]] || die "--$name must be a number, not '${!name}'" 2
  done
  each=$((gpus ? gpus : 1))
  [[ $processes != auto ]] || processes=$((nodes * each))
  ((processes % nodes == 0)) ||
    die "--processes $processes cannot be divided among --nodes $nodes; choose a multiple of it" 2
  if ((gpus && processes != nodes * gpus)); then
    log "--launcher slurm: $processes processes on $nodes x $gpus GPUs: one process uses one GPU"
  fi
  work=(utils/slurm.sh --nodes "$nodes" --gpus "$gpus" --processes "$((processes / nodes))"
    --job-name "tagspeech-$(cksum <<<"$PWD ${exp:-$recipe}" | cut -d ' ' -f 1)"
    --log "${exp:-egs/$recipe/exp}/log/slurm" --cpus "$cpus" ${time:+--time "$time"} ${partition:+--partition "$partition"} --)
  log "--launcher slurm: stages 3 to 7 and 10 are jobs of $nodes nodes with $gpus GPUs and $((processes / nodes)) processes each"
}
