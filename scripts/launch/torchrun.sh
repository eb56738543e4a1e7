#!/usr/bin/env bash
# Start one trueup command on all GPUs of one machine, or of several; see docs/scale.md.
#
#   scripts/launch/torchrun.sh sft sft.yaml strategy=fsdp                          one machine, a process for each GPU
#   PROCESSES=2 scripts/launch/torchrun.sh ppo ppo.yaml device=cpu                 a given number of processes
#   NODES=2 HEAD=node1:29500 scripts/launch/torchrun.sh sft sft.yaml strategy=fsdp the same line on each of two machines
#
# PROCESSES  processes on this machine (as many as it has GPUs, or as CUDA_VISIBLE_DEVICES names; 1 without any)
# NODES      number of machines that run this line (1)
# HEAD       with several machines: name and port of one of them that all can reach; the same on all
# JOB        with several machines: a name for this run, if several runs use one HEAD (trueup)
# TORCHRUN   the launcher (python -m torch.distributed.run)
set -euo pipefail

if [ $# -eq 0 ]; then
  sed -n '2,12s/^# \{0,1\}//p' "$0" >&2
  exit 2
fi

NODES=${NODES:-1}
if [ -z "${PROCESSES:-}" ]; then
  if [ -n "${CUDA_VISIBLE_DEVICES:-}" ]; then
    PROCESSES=$(tr ',' '\n' <<<"$CUDA_VISIBLE_DEVICES" | wc -l)
  else
    PROCESSES=$({ nvidia-smi --list-gpus 2>/dev/null || true; } | wc -l)
  fi
  [ "$PROCESSES" -gt 0 ] || PROCESSES=1
fi
if [ "$NODES" -eq 1 ]; then
  meeting=(--standalone)
else
  : "${HEAD:?with NODES=$NODES, set HEAD=name:port of one of the machines}"
  meeting=(--nnodes "$NODES" --rdzv-backend c10d --rdzv-endpoint "$HEAD" --rdzv-id "${JOB:-trueup}")
fi

# One thread per process unless set: on a CPU, more would slow each other down.
export OMP_NUM_THREADS=${OMP_NUM_THREADS:-1}
# The launcher may be several words. After a stop signal it waits for a step, an evaluation and a checkpoint to end.
read -ra launcher <<<"${TORCHRUN:-python -m torch.distributed.run}"
export TORCH_ELASTIC_SHUTDOWN_TIMEOUT=${TORCH_ELASTIC_SHUTDOWN_TIMEOUT:-300}
exec "${launcher[@]}" "${meeting[@]}" --nproc-per-node "$PROCESSES" -m trueup "$@"
