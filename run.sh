#!/usr/bin/env bash
# The one stage driver: trains, decodes and scores a TagSpeech.
#
# Usage: ./run.sh [--recipe NAME] [--stage N] [--stop-stage N] [--set KEY=VALUE]... [--name VALUE]...
#
#   ./run.sh                            the recipe "mini": about 20 minutes on two cores
#   ./run.sh --stage 7                  decodes again, then what follows as far as it changes
#   ./run.sh --set semantic.train.lr=1e-3 --exp egs/mini/exp-lr
#
#   --recipe NAME       the folder egs/NAME (default: mini)
#   --stage N           starts at stage N and does it even if it is done (default: all that is not done)
#   --stop-stage N      the last stage (default: 10)
#   --set KEY=VALUE     changes a key of the recipe's tagspeech.yaml; may be repeated
#   --offline true      asks nothing of the Hugging Face Hub; takes what was downloaded before
#   --from-scratch true uses no pretrained part, and conf/scratch.yaml if there is one
#   --init-from DIR     goes on from a trained TagSpeech, published or of our own: its encoders take the
#                       place of stages 3 and 4, its projectors and LLM are what stage 6 starts from
#   --model NAME        decodes and scores a trained TagSpeech instead of training one: a folder, ORG/NAME
#                       on the Hub or ORG/NAME@COMMIT; its results go to egs/NAME/exp-MODEL
#   --wandb PROJECT     the curves of trainings go to Weights & Biases too
#   --dry-run           says for each stage whether it would run, with what command and for how long
#   --pretrained DIR    folder whose SHA256SUMS is checked first
#   --config FILE       another tagspeech.yaml
#   --variant FILE      YAML that is laid over it, such as local/ablations/text.yaml
#   --data DIR          corpus, manifests, features (default: egs/NAME/data)
#   --exp DIR           models, results, logs (default: egs/NAME/exp, or that of --model)
#   --encoders DIR      what stages 3 to 5 make, for several experiments (default: that of --exp)
#   --allow-commands true  runs the commands that recordings of a manifest come from, each once
#   --device cpu        computes on the CPU although there are GPUs (default auto: on these, if there are)
#   --dtype bfloat16    type of the LLM in stages 7 and 10 (default auto: bfloat16 on a GPU)
#   --launcher slurm    stages 3 to 7 and 10 are jobs of a Slurm cluster: --nodes 1 --gpus 1 (of each node)
#                       --cpus 4 (of each process) --time LIMIT --partition P, as for utils/slurm.sh
#   --install false     uses the environment as it is, without utils/install.sh
#
# Pretrained parts, named in tagspeech.yaml or by path or name on the Hugging Face Hub: --llm, --semantic-init (what
# stage 3 starts from), --semantic-units (its CTC output), --semantic-encoder (instead), --voice-init, --voice-encoder.
#
# Stages: 0 download or simulate, 1 manifests, 2 utterance groups, 3 semantic encoder, 4 voice encoder,
# 5 speaker embeddings, 6 TagSpeech, 7 decode, 8 score, 9 report, 10 whole meetings. A stage is skipped if
# its inputs and options are those it was done with. Paths are relative to the root of the repository.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")"
. utils/log.sh

# Which recipe: it must be known before its variables can become options.
recipe=mini _before=""
for _argument in "$@"; do
  [[ $_before == --recipe ]] && recipe=$_argument
  _before=$_argument
done
[[ $recipe =~ ^[A-Za-z0-9_-]+$ && -f egs/$recipe/conf/recipe.conf ]] ||
  die "no recipe '$recipe'; there are: $(cd egs && echo */ | tr -d /)" 2

install=true offline=false from_scratch=false stage="" stop_stage=10
data=egs/$recipe/data exp="" encoders=""
config="" variant="" set_args=()
# shellcheck disable=SC2034 # llm is read by its name, below
pretrained="" init_from="" llm=""
semantic_init="" semantic_units="" semantic_encoder="" voice_init="" voice_encoder=""
left_out="" protocol=all whole=test whole_speakers=voice vad=silero allow_commands=false
device=auto dtype=auto model="" wandb="" dry_run=false plan_hours=""
launcher=local nodes=1 gpus=1 cpus=4 time="" partition=""
_help_file=egs/$recipe/conf/recipe.conf
# shellcheck source=egs/mini/conf/recipe.conf
. "$_help_file"
. utils/parse_options.sh
[[ ${stage:-0} =~ ^([0-9]|10)$ ]] || die "--stage must be a number from 0 to 10, not '$stage'" 2
[[ $stop_stage =~ ^([0-9]|10)$ ]] || die "--stop-stage must be a number from 0 to 10, not '$stop_stage'" 2

[[ $install == false ]] || utils/install.sh
. ./path.sh
. local/stage.sh
. local/parts.sh
find_machine

default=egs/$recipe/conf/scratch.yaml
[[ $from_scratch == true && -f $default ]] || default=egs/$recipe/conf/tagspeech.yaml
config=${config:-$default}
[[ -f $config ]] || die "$config: no such file; --config names another" 2
with_config=(--config "$config" ${variant:+--variant "$variant"} ${set_args[@]+"${set_args[@]}"})
exp=${exp:-egs/$recipe/exp${model:+-$(basename "${model%@*}")}}
encoders=${encoders:-$exp}
[[ -z $pretrained || $from_scratch == true ]] || tagspeech verify "$pretrained"

find_parts
depends=$(tagspeech config "${with_config[@]}" --stages)
language=$(sed -n 's/.*"language": "\([^"]*\)".*/\1/p' <<<"$depends")
begin_stages "$exp" "$stage" "$stop_stage" "$depends"

find_files
training=(--processes "$processes" --threads "$threads" --device "$device")
decoding=(--threads "$threads" --device "$device" --dtype "$dtype" --jobs "$jobs")
where="" # what decoding depends on besides
[[ $device$dtype == autoauto ]] || where="device=$device dtype=$dtype"
trained=$model # --model
model=${model:-$exp/tagspeech/pretrained}
decoded=$model${model_commit:+/config.json} # a commit stands for its 15 GB
where+=${model_commit:+" model=$model_commit"}
greedy=$exp/tagspeech/greedy
commands=() && [[ $allow_commands == false ]] || commands=(--allow-commands)

keep_marks_in "$data"
run_stage 0 "download or simulate" \
  --outputs "${corpus[@]}" \
  --options "${data_options[*]}" \
  -- env HF_HUB_OFFLINE="$data_offline" "egs/$recipe/local/data.sh" --stage 0 --data "$data" --jobs "$jobs" "${data_options[@]}"

run_stage 1 "manifests" \
  --inputs "${corpus[@]}" \
  --outputs "${manifests[@]}" ${left_out:+"$left_out"} \
  -- "egs/$recipe/local/data.sh" --stage 1 --data "$data" --jobs "$jobs" "${data_options[@]}"

run_stage 2 "utterance groups" \
  --inputs "${manifests[@]}" ${left_out:+"$left_out"} \
  --outputs "$data"/groups/{train,dev,test}.jsonl.gz "$data"/rejected.{txt,jsonl} \
  --options "max_pause=$max_pause max_rejected=$max_rejected" \
  --work "$data/groups" \
  -- tagspeech groups "${with_config[@]}" --manifests "$data/manifests" --output "$data/groups" \
  --rejected "$data/rejected.jsonl" ${left_out:+--left-out "$left_out"} \
  --max-pause "$max_pause" --max-rejected "$max_rejected" ${commands[@]+"${commands[@]}"}

keep_marks_in "$encoders"
run_stage 3 "semantic encoder" --given "${trained:-$semantic_encoder}" \
  --inputs "$data"/groups/{train,dev}.jsonl.gz \
  ${semantic_init:+"$semantic_init"} ${semantic_units:+"$semantic_units"} \
  --outputs "$semantic" \
  --options "processes=$processes" \
  --work "$encoders/semantic" \
  -- "${work[@]}" train semantic "${with_config[@]}" --groups "$data/groups" \
  ${semantic_init:+--init "$semantic_init"} ${semantic_units:+--init-units "$semantic_units"} \
  --output "$encoders/semantic" "${training[@]}" ${wandb:+--wandb "$wandb"}

run_stage 4 "voice encoder" --given "${trained:-$voice_encoder}" \
  --inputs "$data"/groups/{train,dev}.jsonl.gz ${voice_init:+"$voice_init"} \
  --outputs "$voice" \
  --options "processes=$processes" \
  --work "$encoders/voice" \
  -- "${work[@]}" train voice "${with_config[@]}" --groups "$data/groups" \
  ${voice_init:+--init "$voice_init"} --output "$encoders/voice" "${training[@]}" ${wandb:+--wandb "$wandb"}

frames=$encoders/embeddings # what stage 6 reads
if [[ -z $trained && $depends == *'"train.from_audio": true'* ]]; then
  frames=$data/groups
  skip_stage 5 "speaker embeddings" "stage 6 hears the audio (train.from_audio)"
else
  run_stage 5 "speaker embeddings" --given "$trained" \
    --inputs "$data"/groups/{train,dev}.jsonl.gz "${begin_with[@]}" \
    --outputs "$encoders"/embeddings/{train,dev}.jsonl.gz \
    --work "$encoders/embeddings" \
    -- "${work[@]}" embed "${with_config[@]}" --groups "$data/groups" "${begin_options[@]}" \
    --output "$encoders/embeddings" --jobs "$jobs" --threads "$threads" --device "$device"
fi

keep_marks_in "$exp"
train_tagspeech() {
  local with_groups=("${with_config[@]}" --groups "$frames" "${training[@]}")
  [[ $new_llm == false ]] || "${work[@]}" new-llm "${with_groups[@]}" --output "$exp/llm"
  "${work[@]}" train tagspeech "${with_groups[@]}" "${begin_options[@]}" --output "$exp/tagspeech" \
    ${wandb:+--wandb "$wandb"}
}
run_stage 6 "TagSpeech" --given "$trained" \
  --inputs "$frames"/{train,dev}.jsonl.gz "${begin_with[@]}" \
  ${llm_folder:+"$llm_folder"} \
  --outputs "$model/config.json" "$model/model.safetensors" \
  --options "processes=$processes" \
  --work "$exp/llm" "$exp/tagspeech" \
  -- train_tagspeech

run_stage 7 "decode" \
  --inputs "$decoded" "$data/groups/test.jsonl.gz" \
  --outputs "$greedy"/test.{raw.jsonl,places.json,hyp.seglst.json,hyp-voice.seglst.json,ref.seglst.json} \
  --options "$where" --work "$greedy" \
  -- "${work[@]}" decode "${with_config[@]}" --model "$model" \
  --groups "$data/groups/test.jsonl.gz" --output "$greedy" "${decoding[@]}"

score_both() { # speakers by LLM, speakers by voice
  for speakers in "" -voice; do
    tagspeech score --ref "$greedy/test.ref.seglst.json" \
      --hyp "$greedy/test.hyp$speakers.seglst.json" --raw "$greedy/test.raw.jsonl" \
      --groups "$data/groups/test.jsonl.gz" --protocol "$protocol" --language "$language" \
      --output "$greedy/scores$speakers.json"
  done
}
run_stage 8 "score" \
  --inputs "$greedy"/test.{raw.jsonl,hyp.seglst.json,hyp-voice.seglst.json,ref.seglst.json} \
  "$data/groups/test.jsonl.gz" \
  --outputs "$greedy"/scores{,-voice}.json \
  --options "protocol=$protocol" \
  -- score_both

commit=$(git describe --always --dirty --abbrev=12 --exclude '*' 2>/dev/null || echo unknown)
run_stage 9 "report" \
  --inputs "$greedy"/{scores.json,scores-voice.json,test.places.json,test.hyp.seglst.json,test.ref.seglst.json} \
  "$data/groups/test.jsonl.gz" \
  --outputs "$exp/results.json" "$exp/report.html" \
  -- tagspeech report --scores "$greedy/scores.json" --scores-voice "$greedy/scores-voice.json" \
  --recipe "$recipe" --commit "$commit" --places "$greedy/test.places.json" \
  --ref "$greedy/test.ref.seglst.json" --hyp "$greedy/test.hyp.seglst.json" \
  --seconds "$(mark seconds {"$data","$encoders","$exp"}/.stages)" --output "$exp/results.json" \
  --page "$exp/report.html" --groups "$data/groups/test.jsonl.gz" --exp "$exp"

# Without oracle segmentation; beside it oracle groups, so that cutting and linking show what they cost
if [[ -z $whole ]]; then
  ((stop_stage < 10)) || log "stage 10: whole meetings: this recipe has none"
else
  run_stage 10 "whole meetings" \
    --inputs "$decoded" "$data/manifests/$whole"_{recordings,supervisions}.jsonl.gz \
    --outputs "$exp"/meetings/{ref,hyp}{,-linked,-groups}.seglst.json \
    "$exp"/meetings/{scores,scores-linked,scores-groups,results}.json "$exp/meetings/report.html" \
    --options "max_pause=$max_pause speakers=$whole_speakers vad=$vad${where:+ $where}" \
    --work "$exp/meetings" \
    -- "${work[@]}" meetings "${with_config[@]}" --model "$model" --manifests "$data/manifests/$whole" \
    --max-pause "$max_pause" --speakers "$whole_speakers" --vad "$vad" --output "$exp/meetings" \
    "${decoding[@]}" ${commands[@]+"${commands[@]}"}
fi
