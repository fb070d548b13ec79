#!/usr/bin/env bash
# Runs a verb of tagspeech on the nodes of a Slurm cluster, with sbatch and torchrun, and waits until it ends.
#
# Usage: utils/slurm.sh [--name VALUE]... -- VERB ARGUMENTS...
#
#   utils/slurm.sh --nodes 2 --processes 4 --log exp/log -- train tagspeech --config conf/tagspeech.yaml ...
#
#   --processes N   processes per node (default: one for each GPU, otherwise 1)
#   --gpus N        GPUs per node (default: 0)
#   --nodes N       number of nodes (default: 1)
#   --cpus N        cores per process (default: 4)
#   --time LIMIT    time limit, as for sbatch (default: the cluster's)
#   --partition P   partition (default: the cluster's)
#   --log DIR       folder for the job's script and its log (default: exp/slurm)
#   --job-name NAME name of the job; a job of this name that is at work is cancelled first (default: made
#                   from the command)
#   --port N        port on which the nodes find each other (default: 29400)
#
# The repository and all paths must be visible on all nodes. If the cluster stops the job, the same command
# resumes it. A signal that stops this script cancels the job. The output of the job is printed when it has ended.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. utils/log.sh

processes=""
gpus=0
nodes=1
cpus=4
time=""
partition=""
log=exp/slurm
job_name=""
port=29400
. utils/split_options.sh
command -v sbatch >/dev/null || die "sbatch is not here; on one machine, use utils/local.sh" 2

processes=${processes:-$((gpus > 1 ? gpus : 1))}
job_name=${job_name:-tagspeech-$(cksum <<<"$PWD ${verb[*]}" | cut -d ' ' -f 1)}
jobs=(--user "$(id -un)" --name "$job_name")

cancel() { # all jobs of this name
  scancel "${jobs[@]}"
  while [[ -n $(squeue --noheader "${jobs[@]}") ]]; do
    sleep 1
  done
}

# shellcheck disable=SC2329 # the traps call it
stop() {
  trap - HUP INT TERM
  cancel
  die "stopped, its job $job_name is cancelled; the same command resumes it" "$1"
}

# Two jobs would write over each other.
if [[ -n $(squeue --noheader "${jobs[@]}") ]]; then
  log "a job $job_name is at work, of a run that was killed: cancelling it"
  cancel
fi
mkdir -p "$log"
script=$log/job-$$.sh
{
  echo "#!/usr/bin/env bash"
  echo "#SBATCH --job-name=$job_name --nodes=$nodes --ntasks-per-node=1"
  echo "#SBATCH --cpus-per-task=$((processes * cpus)) --output=$log/job-$$.log"
  ((gpus == 0)) || echo "#SBATCH --gpus-per-node=$gpus"
  [[ -z $time ]] || echo "#SBATCH --time=$time"
  [[ -z $partition ]] || echo "#SBATCH --partition=$partition"
  echo "set -euo pipefail"
  printf 'cd %q\n' "$PWD"
  echo ". ./path.sh"
  # The name of the first node is known only in the job.
  # shellcheck disable=SC2016
  echo 'read -r first < <(scontrol show hostnames "$SLURM_JOB_NODELIST")'
  echo "srun torchrun --nnodes $nodes --nproc-per-node $processes --rdzv-id \"\$SLURM_JOB_ID\" \\"
  echo "  --rdzv-backend c10d --rdzv-endpoint \"\$first:$port\" \\"
  printf '  -m tagspeech'
  printf ' %q' "${verb[@]}"
  echo
} >"$script"
log "job $job_name: $script; its output: $log/job-$$.log"
trap 'stop 129' HUP
trap 'stop 130' INT
trap 'stop 143' TERM
sbatch --wait "$script" >&2 &
code=0
wait "$!" || code=$?
[[ ! -f $log/job-$$.log ]] || cat "$log/job-$$.log"
exit "$code"
