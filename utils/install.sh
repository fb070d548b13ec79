#!/usr/bin/env bash
# Creates the environment .venv in the root of the repository: the pinned requirements and this package,
# editable. Does nothing if it is up to date; a killed call resumes.
#
# Usage: utils/install.sh [--cuda true|false|auto] [--dev true|false] [--python PROGRAM]
#
#   --cuda    true: torch for CUDA; false: torch for the CPU; auto: for CUDA if an NVIDIA driver is here.
#             Default: as in the existing .venv; auto in a new one
#   --dev     true: also the tools of utils/test.sh (default: false)
#   --python  a Python 3.10 to 3.13 (default: the first found of python3, python3.13 ... python3.10)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

cuda="" choice=""
dev=false
python=""
. utils/log.sh
. utils/parse_options.sh

cpu_page=https://download.pytorch.org/whl/cpu
mark=.venv/.installed     # lines: folder, gpu, then the content of the files it was made from
dev_mark=.venv/.installed-dev

# The content that the marks must have. Comparing text is faster than starting a hash program.
wanted() {
  echo "folder $PWD"
  echo "gpu $gpu"
  cat pyproject.toml requirements.txt requirements-gpu.txt
}
is_current() {
  [[ -f $1 && "$(cat "$1")" == "$2" ]]
}

# driver: prints the version of the NVIDIA driver, or nothing
driver() {
  local said=${TAGSPEECH_DRIVER_FILE:-/proc/driver/nvidia/version}
  if command -v nvidia-smi >/dev/null 2>&1; then
    nvidia-smi --query-gpu=driver_version --format=csv,noheader 2>/dev/null | sed -n 1p
  elif [[ -r $said ]]; then
    sed -n 's/.*Kernel Module[^0-9]*\([0-9.]*\).*/\1/p' "$said"
  fi
}

[[ -z $cuda || $cuda == true || $cuda == false || $cuda == auto ]] ||
  die "option '--cuda' must be true, false or auto, not '$cuda'" 2
gpu=$cuda
if [[ -z $cuda && -f $mark ]]; then
  gpu=false
  ! grep -qx 'gpu true' "$mark" || gpu=true
  [[ $gpu == true || -z $(driver) ]] || log "install: an NVIDIA driver is here, but .venv has torch \
for the CPU, as it was asked for; utils/install.sh --cuda true replaces it"
elif [[ -z $cuda || $cuda == auto ]]; then
  gpu=false found=$(driver)
  if [[ -n $found ]]; then
    gpu=true
    choice="found NVIDIA driver $found: torch for CUDA; utils/install.sh --cuda false takes the CPU build"
  else
    choice="found no NVIDIA driver (nvidia-smi, /proc/driver/nvidia/version): torch for the CPU; \
utils/install.sh --cuda true takes the CUDA build"
  fi
fi
base_wanted=$(wanted)
dev_wanted=$(cat requirements-dev.txt requirements-serve.txt)
if [[ -z $python ]] && is_current "$mark" "$base_wanted"; then
  if [[ $dev == false ]] || is_current "$dev_mark" "$dev_wanted"; then
    exit 0
  fi
fi

is_supported() {
  "$1" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' >/dev/null 2>&1
}
version_of() {
  "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null
}
find_python() {
  local program
  for program in python3 python3.13 python3.12 python3.11 python3.10; do
    if is_supported "$program"; then
      echo "$program"
      return
    fi
  done
  die "no Python 3.10 to 3.13 found; install one, or name it: utils/install.sh --python PROGRAM"
}

if [[ -n $python ]]; then
  is_supported "$python" || die "--python $python: is not a Python 3.10 to 3.13"
else
  python=$(find_python)
  if [[ -x .venv/bin/python ]] && is_supported .venv/bin/python; then
    python=.venv/bin/python
  fi
fi

[[ -z $choice ]] || log "install: $choice"

# One installation at a time; the lock lasts as long as descriptor 9 is open.
exec 9>>.venv.lock
"$python" -c 'import fcntl; fcntl.flock(9, fcntl.LOCK_EX)'

# 1. The environment. The programs of one that was copied from elsewhere start the Python of the old
#    place, so it is recreated.
if [[ -f $mark ]] && ! grep -qxF "folder $PWD" "$mark"; then
  log "install: .venv was made in another folder; recreating it"
  [[ $python == .venv/bin/python ]] && python=$(find_python)
  rm -rf .venv
fi
if [[ -x .venv/bin/python && "$(version_of .venv/bin/python)" != "$(version_of "$python")" ]]; then
  die ".venv is for Python $(version_of .venv/bin/python || echo "that is gone"), not for that \
of $python; remove .venv to recreate it"
fi
if ! .venv/bin/python -m pip --version >/dev/null 2>&1; then
  log "install: making .venv with $python"
  "$python" -m venv .venv ||
    die "$python -m venv failed (on Debian and Ubuntu: apt install python3-venv)"
fi
python=.venv/bin/python

pip_install() {
  "$python" -m pip install --quiet --disable-pip-version-check "$@" || die "pip failed: see above"
}
# installed NAME: prints the version in .venv, or nothing
installed() {
  "$python" - "$1" <<'END'
import sys
from importlib import metadata
try:
    print(metadata.version(sys.argv[1]))
except metadata.PackageNotFoundError:
    pass
END
}
# pinned NAME: prints its version in requirements.txt, where NAME may have extras: NAME[extra]==...
pinned() {
  sed -n "s/^$1\(\[[^]]*\]\)\{0,1\}==\([^; ]*\).*/\2/p" requirements.txt
}
# torch_cuda: prints the CUDA version that torch was built for, or None; read without importing it
torch_cuda() {
  "$python" - <<'END'
import importlib.util, os, runpy
spec = importlib.util.find_spec("torch")
if spec is not None:
    print(runpy.run_path(os.path.join(os.path.dirname(spec.origin), "version.py"))["cuda"])
END
}
answers() {
  "$python" - "$1" >/dev/null 2>&1 <<'END'
import sys, urllib.request
urllib.request.urlopen(sys.argv[1], timeout=4)
END
}

if ! is_current "$mark" "$base_wanted"; then
  rm -f "$mark"

  # 2. meeteval and spy-der are compiled here. Name what is missing before pip does so at length.
  if [[ $(installed meeteval) != "$(pinned meeteval)" || $(installed spy-der) != "$(pinned spy-der)" ]]; then
    command -v "${CXX:-g++}" >/dev/null 2>&1 || command -v c++ >/dev/null 2>&1 ||
      die "meeteval and spy-der are built from source and need a C++ compiler, which is missing \
(Debian and Ubuntu: apt install g++; macOS: xcode-select --install)"
    "$python" -c 'import os, sysconfig as s, sys
sys.exit(not os.path.exists(os.path.join(s.get_path("include"), "Python.h")))' ||
      die "meeteval and spy-der are built from source and need Python.h, which is missing \
(Debian and Ubuntu: apt install python3-dev)"
  fi

  # 3. torch, first without its dependencies, so that a CUDA build never installs its libraries if
  #    the CPU build was requested.
  version=$(pinned torch)
  have=$(installed torch)
  if [[ ${have%%+*} != "$version" || ($gpu == true && $(torch_cuda) == None) ||
    ($gpu == false && $(torch_cuda) != None) ]]; then
    if [[ $gpu == true ]]; then
      log "install: torch $version for CUDA"
      pip_install --force-reinstall --no-deps -r requirements-gpu.txt
    elif answers "$cpu_page/torch/"; then
      log "install: torch $version for the CPU, from $cpu_page"
      pip_install --force-reinstall --no-deps --index-url "$cpu_page" "torch==$version"
    else
      log "install: torch $version for the CPU, from pip's own index ($cpu_page does not answer)"
      pip_install --force-reinstall --no-deps "torch==$version"
    fi
  fi
  built_for=$(torch_cuda)
  if [[ $gpu == false && $built_for != None ]]; then
    "$python" -m pip uninstall --quiet --yes torch
    die "pip found only a CUDA build of torch $version (CUDA $built_for), which was removed again; \
make $cpu_page reachable, or accept it: utils/install.sh --cuda true"
  elif [[ $gpu == true && $built_for == None ]]; then
    die "pip found no CUDA build of torch $version for this machine; take the CPU build: --cuda false"
  fi

  # 4. The rest, and this package.
  log "install: the pinned requirements"
  pip_install -r requirements.txt
  pip_install --no-deps --no-build-isolation --editable .
  echo "$base_wanted" >"$mark.partial"
  mv "$mark.partial" "$mark"
fi

if [[ $dev == true ]] && ! is_current "$dev_mark" "$dev_wanted"; then
  log "install: the tools of utils/test.sh"
  pip_install -r requirements-dev.txt
  echo "$dev_wanted" >"$dev_mark.partial"
  mv "$dev_mark.partial" "$dev_mark"
fi
log "install: .venv is ready (Python $(version_of "$python"), torch $(installed torch))"
