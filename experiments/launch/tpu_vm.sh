#!/usr/bin/env bash
# A slice of TPU VMs (gcloud): the same command on every host. JAX finds the hosts by itself.
#
#   experiments/launch/tpu_vm.sh NAME ZONE --config=experiments/configs/soda_imagenet.py --workdir=/mnt/shared/run1
#
# Once before: the checkout and its virtual environment on every host (pip install -r requirements.txt 'jax[tpu]'),
# and a workdir that all hosts see (Filestore, or a bucket mounted with gcsfuse). Preempted: run it again.
set -euo pipefail
name=$1 zone=$2
shift 2
printf -v arguments ' %q' "$@"
exec gcloud compute tpus tpu-vm ssh "$name" --zone="$zone" --worker=all \
  --command="cd soda_jax && source .venv/bin/activate && python -m experiments.train$arguments"
