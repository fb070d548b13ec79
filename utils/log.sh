# shellcheck shell=bash
# Sourced by other scripts. Messages go to stderr; stdout is for results.

log() {
  echo "$(date '+%Y-%m-%d %H:%M:%S') $*" >&2
}

# die MESSAGE [EXIT_CODE]
die() {
  echo "${0##*/}: error: $1" >&2
  exit "${2:-1}"
}
