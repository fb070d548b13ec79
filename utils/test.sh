#!/usr/bin/env bash
# Checks the repository: lint, format, types, shell scripts, then the tests. Stops at the first
# failure; on success pytest's closing line is the last.
#
# Usage: utils/test.sh [ARGUMENTS OF PYTEST...]      e.g. utils/test.sh tests/test_house.py -k lock
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. utils/log.sh
if [[ ${1:-} == --help ]]; then
  . utils/parse_options.sh # prints the lines above
fi

utils/install.sh --dev true
. ./path.sh

log "ruff check";  ruff check --quiet .
log "ruff format"; ruff format --quiet --check . ||
  die "some files are not formatted (shown by: ruff format --diff .); remedy: ruff format ."
log "mypy";        mypy --no-error-summary
log "shellcheck"
scripts=(run.sh path.sh .ci/run utils/*.sh local/*.sh egs/*/run.sh egs/*/conf/recipe.conf egs/*/local/*.sh)
shellcheck "${scripts[@]}"
log "pytest"
exec python3 -m pytest -q "$@"
