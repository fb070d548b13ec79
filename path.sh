# shellcheck shell=bash
# Sourced by other scripts: sets environment variables, nothing else.

TAGSPEECH_ROOT=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd -P)
export TAGSPEECH_ROOT

case ":$PATH:" in
  *":$TAGSPEECH_ROOT/.venv/bin:"*) ;;
  *) export PATH="$TAGSPEECH_ROOT/.venv/bin:$PATH" ;;
esac
case ":${PYTHONPATH:-}:" in
  *":$TAGSPEECH_ROOT:"*) ;;
  *) export PYTHONPATH="$TAGSPEECH_ROOT${PYTHONPATH:+:$PYTHONPATH}" ;;
esac

# The same seed gives the same bits; the tokenizer starts no threads beside the workers of a data loader.
export PYTHONHASHSEED=0
export TOKENIZERS_PARALLELISM=false

# Waiting threads sleep instead of using the cores that other processes need.
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-passive}"
export GOMP_SPINCOUNT="${GOMP_SPINCOUNT:-0}"

# glibc: keep freed memory in the process. Training on a CPU frees and allocates the same large buffers at
# every step; returning them to the kernel each time costs page faults.
export MALLOC_MMAP_MAX_="${MALLOC_MMAP_MAX_:-0}"
export MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-1073741824}"
export MALLOC_TOP_PAD_="${MALLOC_TOP_PAD_:-67108864}"
