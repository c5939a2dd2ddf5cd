#!/usr/bin/env bash
#SBATCH --signal=USR1@180
#SBATCH --requeue
#SBATCH --open-mode=append
# Trains on a Slurm cluster for as many time limits as it takes: saves before each, and queues again.
#
#   sbatch --time=8:00:00 --nodes=2 --ntasks-per-node=8 --gres=gpu:8 \
#     tools/slurm_requeue.sh CONFIG [arguments of mmresnest train]
#
# Submit it where CONFIG and the environment are; the job starts in the same folder. 180 s before the
# limit Slurm signals the training, which saves after its iteration and ends with status 75. SRUN_ARGS
# is handed to srun, PORT (29500) is the port the processes meet at.
set -euo pipefail

if [ $# -lt 1 ] || [ -z "${SLURM_JOB_ID:-}" ]; then
  sed -n '5,12s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
export MASTER_PORT=${PORT:-29500}
# Since Slurm 22.05 srun does not take this from the job.
if [ -n "${SLURM_CPUS_PER_TASK:-}" ]; then
  export SRUN_CPUS_PER_TASK=$SLURM_CPUS_PER_TASK
fi

# Slurm signals the steps of a job. Where it signals this shell (--signal=B:USR1, scancel --full), srun
# hands the signal on. A shell that waits for a child in the foreground would not hear it.
told='' step=''
trap 'told=yes; [ -z "$step" ] || kill -USR1 "$step" || true' USR1 TERM
# All processes end with 75, each a little later than the first; with --kill-on-bad-exit=1 srun would
# kill these, and return that. Where only one ends, the others have a minute.
# shellcheck disable=SC2086  # SRUN_ARGS is a list of arguments
srun --kill-on-bad-exit=0 --wait=60 ${SRUN_ARGS:-} \
  "${PYTHON:-python}" -u -m mmresnest train "$@" --launcher slurm --resume if-any &
step=$!
status=0
while
  told=''
  wait "$step" && status=0 || status=$?
  [ -n "$told" ]        # then this is why the shell no longer waits
do :; done

# A job that is not running any more was cancelled, or Slurm itself queues it again.
if [ "$status" -eq 75 ] && [[ $(scontrol show job "$SLURM_JOB_ID") == *JobState=RUNNING* ]]; then
  echo "slurm_requeue: the training was stopped and is saved; job $SLURM_JOB_ID is queued again"
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$status"
