# shellcheck shell=bash
# Sourced by other scripts after utils/log.sh: Kaldi's convention for options.
#
#   --some-name VALUE   sets the shell variable some_name, which must exist: its value is the default
#   --set KEY=VALUE     may be repeated; set_args then holds (--set KEY=VALUE --set ...)
#   --help              prints the comment at the top of the calling script, and the file $_help_file
#                       if the caller sets it
#
# A variable whose default is true or false accepts only these two; one that is false needs no VALUE
# to become true.

_print_help() {
  awk 'NR > 1 && !/^#/ { exit } NR > 1 { sub(/^# ?/, ""); print }' "$0"
  if [[ -n ${_help_file:-} ]]; then
    printf '\nVariables of %s, each an option --name VALUE too:\n\n' "$_help_file"
    grep -v '^# shellcheck' "$_help_file"
  fi
}

_hint="see ${0##*/} --help"
while [[ $# -gt 0 ]]; do
  case $1 in
    --help | -h)
      _print_help
      exit 0
      ;;
    --*) ;;
    *) die "unexpected argument '$1'; $_hint" 2 ;;
  esac
  _name=${1#--}
  _name=${_name//-/_}
  if [[ ! $_name =~ ^[a-z][a-z0-9_]*$ ]] ||
    { [[ $_name == set ]] && ! declare -p set_args >/dev/null 2>&1; } ||
    { [[ $_name != set ]] && [[ -z ${!_name+defined} ]]; }; then
    die "unknown option '$1'; $_hint" 2
  fi
  if [[ $_name != set && ${!_name} == false && ($# -lt 2 || $2 == --*) ]]; then
    printf -v "$_name" true
    shift
    continue
  fi
  if [[ $# -lt 2 || $2 == --* ]]; then
    die "option '$1' needs a value; $_hint" 2
  fi
  if [[ $_name == set ]]; then
    [[ $2 == ?*=* ]] || die "--set '$2': must be KEY=VALUE, such as --set train.lr=1e-4" 2
    set_args+=(--set "$2")
  else
    if [[ ${!_name} == true || ${!_name} == false ]] && [[ $2 != true && $2 != false ]]; then
      die "option '$1' must be true or false, not '$2'; $_hint" 2
    fi
    [[ $2 != *$'\n'* ]] || die "option '$1': must have no newline; rename the file or folder" 2
    # A path that begins with a dash would be an option of other programs.
    if [[ $2 == -* && ! $2 =~ ^-[0-9.] ]]; then
      printf -v "$_name" './%s' "$2"
    else
      printf -v "$_name" '%s' "$2"
    fi
  fi
  shift 2
done
unset _name _hint
