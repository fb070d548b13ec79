#!/usr/bin/env bash
# Checks the repository: lint, format, types, shell scripts, Dockerfiles (with CI=true the one for CPUs is built if
# docker runs), then the tests. Stops at the first failure; on success pytest's closing line is the last.
#
# Usage: utils/test.sh [--browser true] [ARGUMENTS OF PYTEST...]
#        e.g. utils/test.sh tests/test_stage_driver.py -k lock
#
#   --browser true   installs Debian's Chromium if there is none (414 MB, needs root), for the tests of the report
#                    in a browser, which are otherwise skipped (default: true if CI=true)
#
# As many test files run at once as there are processors, each in one process; `-n 0` runs them one by one.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. utils/log.sh
if [[ ${1:-} == --help ]]; then
  . utils/parse_options.sh # prints the lines above
fi

browser=false
[[ ${CI:-} == true ]] && browser=true
if [[ ${1:-} == --browser ]]; then
  browser=${2:-}
  [[ $browser == true || $browser == false ]] ||
    die "option '--browser' must be true or false, not '$browser'" 2
  shift 2
fi

utils/install.sh --dev true
. ./path.sh

install_chromium() {
  [[ $EUID == 0 ]] || { echo "needs root"; return 1; }
  command -v apt-get >/dev/null || { echo "there is no apt-get"; return 1; }
  export DEBIAN_FRONTEND=noninteractive
  timeout 180 sh -c 'apt-get -qq update; apt-get -qq install -y --no-install-recommends chromium'
}
if [[ -z ${CHROMIUM:-} ]] && ! command -v chromium >/dev/null; then
  if [[ $browser == false ]]; then
    log "chromium: is not here, tests in a browser are skipped; --browser true installs it (414 MB)"
  else
    log "chromium: installing Debian's, for the tests of the report"
    said=$(install_chromium 2>&1) ||
      log "chromium: cannot be installed, tests in a browser are skipped: ${said##*$'\n'}"
  fi
fi

log "ruff check";  ruff check --quiet .
log "ruff format"; ruff format --quiet --check . ||
  die "some files are not formatted (shown by: ruff format --diff .); remedy: ruff format ."
log "mypy";        mypy --no-error-summary
log "shellcheck"
scripts=(run.sh path.sh .ci/run utils/*.sh local/*.sh egs/*/run.sh egs/*/conf/recipe.conf egs/*/local/*.sh)
shellcheck "${scripts[@]}"
log "hadolint";    hadolint utils/docker/*.Dockerfile
if [[ ${CI:-} == true ]] && docker info >/dev/null 2>&1; then
  log "docker build"; docker build --quiet --file utils/docker/cpu.Dockerfile .
fi
log "pytest"
exec python3 -m pytest -q -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"
