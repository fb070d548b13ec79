#!/usr/bin/env bash
# Runs a verb of tagspeech on machines of a Slurm cluster, by sbatch and torchrun, and waits for its end.
#
# Usage: utils/slurm.sh [--name VALUE]... -- VERB ARGUMENTS...
#
#   utils/slurm.sh --nodes 2 --processes 4 --log exp/log -- train tagspeech --config conf/tagspeech.yaml ...
#
#   --processes N   on each machine (default: 1)
#   --nodes N       machines (default: 1)
#   --cpus N        cores for each process (default: 4)
#   --time LIMIT    as sbatch takes it (default: the cluster's)
#   --partition P   (default: the cluster's)
#   --log DIR       where the job's script and what it says go (default: exp/slurm)
#   --port N        on which the machines find each other (default: 29400)
#
# The repository and all paths must be visible to all machines. A job that the cluster stopped goes on where it
# was with the same command.
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
command -v sbatch >/dev/null || die "sbatch is not here; on one machine: utils/local.sh" 2

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
  # The name of the first machine is known only in the job.
  # shellcheck disable=SC2016
  echo 'first=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)'
  echo "srun torchrun --nnodes $nodes --nproc-per-node $processes --rdzv-id \"\$SLURM_JOB_ID\" \\"
  echo "  --rdzv-backend c10d --rdzv-endpoint \"\$first:$port\" \\"
  printf '  -m tagspeech'
  printf ' %q' "${verb[@]}"
  echo
} >"$script"
log "job script: $script"
exec sbatch --wait "$script"
