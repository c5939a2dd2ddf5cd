#!/usr/bin/env bash
# Runs tools/train.py on a Slurm cluster, one process for each GPU.
#
#   [GPUS=8] tools/slurm_train.sh PARTITION JOB_NAME CONFIG [arguments of train.py]
#
# GPUS in all (8), GPUS_PER_NODE (8, or GPUS if fewer) and CPUS_PER_TASK (5) shape the job; SRUN_ARGS
# is handed to srun, PORT (29500) is the port the processes meet at.
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,7s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
partition=$1 job=$2 config=$3
shift 3
gpus=${GPUS:-8}
per_node=${GPUS_PER_NODE:-$((gpus < 8 ? gpus : 8))}
export MASTER_PORT=${PORT:-29500}
# shellcheck disable=SC2086  # SRUN_ARGS is a list of arguments
exec srun --partition="$partition" --job-name="$job" \
  --ntasks="$gpus" --ntasks-per-node="$per_node" --gres="gpu:$per_node" \
  --cpus-per-task="${CPUS_PER_TASK:-5}" --kill-on-bad-exit=1 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u "$(dirname "$0")/train.py" "$config" --launcher slurm "$@"
