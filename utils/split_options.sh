# shellcheck shell=bash
# Sourced instead of utils/parse_options.sh: parses the options of the script, then `--`, then a verb of tagspeech
# and its arguments, which it puts into the array `verb`.

_options=()
while [[ $# -gt 0 && $1 != -- ]]; do
  _options+=("$1")
  shift
done
verb=("${@:2}")
set -- ${_options[@]+"${_options[@]}"}
. utils/parse_options.sh
[[ ${#verb[@]} -gt 0 ]] || die "needs -- and a verb of tagspeech; see ${0##*/} --help" 2
unset _options
