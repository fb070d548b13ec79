#!/usr/bin/env bash
# Runs a verb of tagspeech on the nodes of a Slurm cluster, with sbatch and torchrun, and waits until it ends.
#
# Usage: utils/slurm.sh [--name VALUE]... -- VERB ARGUMENTS...
#
#   utils/slurm.sh --nodes 2 --processes 4 --log exp/log -- train tagspeech --config conf/tagspeech.yaml ...
#
#   --processes N   processes per node (default: 1)
#   --nodes N       number of nodes (default: 1)
#   --cpus N        cores per process (default: 4)
#   --time LIMIT    time limit, as for sbatch (default: the cluster's)
#   --partition P   partition (default: the cluster's)
#   --log DIR       folder for the job's script and its log (default: exp/slurm)
#   --port N        port on which the nodes find each other (default: 29400)
#
# The repository and all paths must be visible on all nodes. If the cluster stops the job, the same command
# resumes it.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
. utils/log.sh

processes=1
nodes=1
cpus=4
time=""
partition=""
log=exp/slurm
port=29400
. utils/split_options.sh
command -v sbatch >/dev/null || die "sbatch is not here; on one machine, use utils/local.sh" 2

mkdir -p "$log"
script=$log/job-$$.sh
{
  echo "#!/usr/bin/env bash"
  echo "#SBATCH --job-name=tagspeech --nodes=$nodes --ntasks-per-node=1"
  echo "#SBATCH --cpus-per-task=$((processes * cpus)) --output=$log/job-%j.log"
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
log "job script: $script"
exec sbatch --wait "$script"
