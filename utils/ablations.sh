#!/usr/bin/env bash
# The paper's ablations: trains, decodes and scores each variant of a recipe with ./run.sh. After every
# experiment, it updates the tables in egs/NAME/RESULTS.md. Completed experiments are skipped, and the same
# command resumes a stopped run. To repeat an experiment, delete its folder.
#
# Usage: utils/ablations.sh [--recipe NAME] [--table NAME] [--seeds N] [--name VALUE]...
#
#   utils/ablations.sh --recipe mini --table encoders --seeds 2
#   utils/ablations.sh --recipe ami --corpus-dir PATH
#
#   --recipe NAME    the folder egs/NAME (default: mini)
#   --table NAME     encoders, anchor_form, anchor_interval (default: all)
#   --seeds N        seeds 1 to N of TagSpeech and of a new LLM (default: 1); encoders have one
#   --config FILE    the configuration that variants are laid over (default: egs/NAME/conf/ablations.yaml if
#                    it exists, otherwise that of ./run.sh)
#   --exp DIR        folder of the experiments, DIR/VARIANT/seed-N, and of what they share: DIR/encoders-* with
#                    stages 3 to 5, and DIR/llm (default: egs/NAME/exp-ablations)
#   --results FILE   the Markdown file with the tables (default: egs/NAME/RESULTS.md)
#   --install false  uses the environment as it is, without utils/install.sh
#   --name VALUE     any other option of ./run.sh, including --set KEY=VALUE
#
# local/ablations/tables.yaml has the rows, the variants and the paper's figures. Each variant is a YAML file
# there, or in egs/NAME/conf/ablations; the log has the command that runs it alone. If there is a llm.yaml, a
# TagSpeech is trained with it first, and all variants start from its LLM.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. utils/log.sh

command="utils/ablations.sh${*:+ $*}"
recipe=mini
table=all
seeds=1
config=""
exp=""
results=""
install=true
others=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h) . utils/parse_options.sh ;;
    --*) [[ $# -gt 1 ]] || die "option '$1' must have a value; see ablations.sh --help" 2 ;;
    *) die "unexpected argument '$1'; see ablations.sh --help" 2 ;;
  esac
  case $1 in
    --recipe | --table | --seeds | --config | --exp | --results | --install)
      printf -v "${1#--}" %s "$2"
      ;;
    *) others+=("$1" "$2") ;;
  esac
  shift 2
done
[[ -d egs/$recipe/conf ]] || die "no recipe '$recipe'; there are: $(cd egs && echo */ | tr -d /)" 2
exp=${exp:-egs/$recipe/exp-ablations}
results=${results:-egs/$recipe/RESULTS.md}
if [[ -z $config && -f egs/$recipe/conf/ablations.yaml ]]; then
  config=egs/$recipe/conf/ablations.yaml
fi

[[ $install == false ]] || utils/install.sh
. ./path.sh
tables=(--tables local/ablations/tables.yaml --table "$table" --seeds "$seeds")

fill_tables() {
  tagspeech ablation-tables "${tables[@]}" --exp "$exp" --results "$results" --command "$command"
}

# train NAME FOLDER ENCODERS [OPTIONS OF run.sh...]: one experiment
train() {
  local file=egs/$recipe/conf/ablations/$1.yaml
  [[ -f $file ]] || file=local/ablations/$1.yaml
  local call=(./run.sh --recipe "$recipe" --install false ${config:+--config "$config"} --variant "$file"
    --exp "$exp/$2" --encoders "$exp/encoders-$3" "${@:4}" ${others[@]+"${others[@]}"})
  log "$2: ${call[*]}"
  "${call[@]}" </dev/null
}

llm=()
if [[ -f egs/$recipe/conf/ablations/llm.yaml ]]; then
  train llm llm sot --stop-stage 6
  llm=(--llm "$exp/llm/tagspeech/pretrained/llm")
fi
cells=$(tagspeech ablation-cells "${tables[@]}")
free=(--set decode.grammar=false) # decoding without the constraint, as in the paper
while read -r variant seed encoders; do
  train "$variant" "$variant/seed-$seed" "$encoders" --stop-stage 9 ${llm[@]+"${llm[@]}"} "${free[@]}" \
    --set "train.seed=$seed" --set "llm.new.seed=$seed" --set "llm.new.train.seed=$seed"
  fill_tables
done <<<"$cells"
log "the tables are in $results"
