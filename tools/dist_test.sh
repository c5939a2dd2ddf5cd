#!/usr/bin/env bash
# Runs tools/test.py in several processes, one for each GPU of this machine (gloo on machines without).
#
#   tools/dist_test.sh CONFIG CHECKPOINT PROCESSES [arguments of test.py]
#
# On several machines, run it on each with NNODES, NODE_RANK and MASTER_ADDR set:
#
#   NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 tools/dist_test.sh CONFIG CHECKPOINT 8
#
# PORT (29500) is the port of the first machine; take another for a second run beside this one.
set -euo pipefail

if [ $# -lt 3 ]; then
  sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi
config=$1 checkpoint=$2 processes=$3
shift 3
if [ -z "${OMP_NUM_THREADS:-}" ]; then
  # torchrun would set one thread; so marked, each process takes its share of the cores instead.
  export OMP_NUM_THREADS=1 MMRESNEST_CHOSEN_THREADS=OMP_NUM_THREADS
fi
exec "${PYTHON:-python}" -m torch.distributed.run \
  --nnodes="${NNODES:-1}" --node_rank="${NODE_RANK:-0}" --nproc_per_node="$processes" \
  --master_addr="${MASTER_ADDR:-127.0.0.1}" --master_port="${PORT:-29500}" \
  "$(dirname "$0")/test.py" "$config" "$checkpoint" --launcher pytorch "$@"
