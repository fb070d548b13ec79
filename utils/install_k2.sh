#!/usr/bin/env bash
# Installs k2 into .venv, for semantic.sot.loss: pruned_transducer. Picks the newest wheel on k2's own pages
# (requirements-k2.txt) for the torch, CUDA and Python in .venv.
#
# Usage: utils/install_k2.sh [--install true|false] [--page URL] [--name VALUE]...
#
#   --install  false: only prints the address of the wheel (default: true)
#   --page     another page of wheels (default: the page in requirements-k2.txt for the CPU or for CUDA)
#   --torch, --cuda, --machine, --system
#              pick for these instead of what is installed, such as 2.13.0, 12.8 (or none), aarch64, macosx
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

install=true
page=""
torch=""
cuda=""
machine=""
system=""
. utils/log.sh
. utils/parse_options.sh
[[ $install == true || $install == false ]] || die "option '--install' must be true or false, not '$install'" 2
. ./path.sh

wheel=$(python3 utils/pick_k2.py requirements-k2.txt "$page" "$torch" "$cuda" "$machine" "$system") || exit 2
if [[ $install == false ]]; then
  echo "$wheel"
  exit
fi
log "install_k2: $wheel"
python3 -m pip install --quiet --disable-pip-version-check "$wheel" || die "pip failed: see above"
python3 -c 'import k2' || die "k2 was installed, but cannot be imported: see above"
log "install_k2: k2 is ready"
