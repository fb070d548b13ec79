#!/usr/bin/env bash
# Checks the repository: lint, format, types, shell scripts, then the tests. Stops at the first
# failure; on success pytest's closing line is the last.
#
# Usage: utils/test.sh [ARGUMENTS OF PYTEST...]      e.g. utils/test.sh tests/test_house.py -k lock
#
# As many tests run at once as there are processors, those of one file in one process; `-n 0` runs
# them one by one. Where there is no Chromium and Debian's can be had, it is installed (414 MB, needs
# root); without one the tests of the report in a browser are skipped.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. utils/log.sh
if [[ ${1:-} == --help ]]; then
  . utils/parse_options.sh # prints the lines above
fi

utils/install.sh --dev true
. ./path.sh

install_chromium() {
  export DEBIAN_FRONTEND=noninteractive
  timeout 180 sh -c 'apt-get -qq update; apt-get -qq install -y --no-install-recommends chromium'
}
if [[ -z ${CHROMIUM:-} && $EUID == 0 ]] && ! command -v chromium >/dev/null &&
  command -v apt-get >/dev/null; then
  log "chromium: installing Debian's, for the tests of the report"
  said=$(install_chromium 2>&1) ||
    log "chromium: cannot be installed, its tests are skipped: ${said##*$'\n'}"
fi

log "ruff check";  ruff check --quiet .
log "ruff format"; ruff format --quiet --check . ||
  die "some files are not formatted (shown by: ruff format --diff .); remedy: ruff format ."
log "mypy";        mypy --no-error-summary
log "shellcheck"
scripts=(run.sh path.sh .ci/run utils/*.sh local/*.sh egs/*/run.sh egs/*/conf/recipe.conf egs/*/local/*.sh)
shellcheck "${scripts[@]}"
log "pytest"
exec python3 -m pytest -q -n logical --maxprocesses 8 --dist loadfile --no-loadscope-reorder "$@"
