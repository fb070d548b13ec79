# shellcheck shell=bash disable=SC2034
# Sourced by egs/*/local/pretrain.sh, after utils/log.sh: --output and --exp set the variables of these names,
# --help prints the top of the script, and all other options go to run.sh in the array `others`.

others=()
while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h) . utils/parse_options.sh ;;
    --*) [[ $# -gt 1 ]] || die "option '$1' must have a value; see pretrain.sh --help" 2 ;;
    *) die "unexpected argument '$1'; see pretrain.sh --help" 2 ;;
  esac
  case $1 in
    --output) output=$2 ;;
    --exp) exp=$2 ;;
    *) others+=("$1" "$2") ;;
  esac
  shift 2
done
