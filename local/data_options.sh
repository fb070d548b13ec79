# shellcheck shell=bash
# Shared by all recipes: sourced by egs/NAME/local/data.sh in the folder egs/NAME. Changes to the root of the
# repository and sets $stage, $data and the variables of NAME's recipe.conf, which options override.

stage=""
data=egs/${PWD##*/}/data
_help_file=egs/${PWD##*/}/conf/recipe.conf
cd ../..
# shellcheck source=egs/template/conf/recipe.conf
. "$_help_file"
. utils/log.sh
. utils/parse_options.sh
. ./path.sh
[[ $stage == 0 || $stage == 1 ]] || die "--stage must be 0 or 1, not '$stage'" 2

# copy_manifests: stage 1 of recipes whose stage 0 writes Lhotse manifests beside the corpus
copy_manifests() {
  local manifest copy
  mkdir -p "$data/manifests"
  for manifest in "$data"/corpus/*_{recordings,supervisions}.jsonl.gz; do
    copy="$data/manifests/${manifest##*/}"
    cp "$manifest" "$copy.partial"
    mv "$copy.partial" "$copy"
  done
}
