# shellcheck shell=bash disable=SC2034,SC2154
# To be sourced by run.sh, after utils/log.sh: the pretrained parts and the machine.
#
#   find_parts     what stages 3 to 6 start from must be there, and fit, before the long work. Sets
#                  semantic_init ... voice_encoder, new_llm, llm_folder, model; adds to with_config
#                  what the configuration must say besides
#   find_machine   resolves processes=auto, and says which places the stages compute on
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

# --device cpu hides the GPUs from all stages. Where the machine has GPUs, processes=auto means a
# process for each; where it has none, one.
find_machine() {
  [[ $device =~ ^(auto|cpu|cuda)$ ]] || die "--device must be auto, cpu or cuda, not '$device'; \
CUDA_VISIBLE_DEVICES picks GPUs" 2
  [[ $device != cpu ]] || export CUDA_VISIBLE_DEVICES=""
  if [[ $processes == auto ]]; then
    processes=$(tagspeech gpus)
    log "processes=auto: $processes GPUs here; training processes: $((processes ? processes : 1))"
    ((processes)) || processes=1
  fi
  # shellcheck source=local/dry_run.sh
  [[ $dry_run == false ]] || . local/dry_run.sh
}
