#!/usr/bin/env bash
# Hosts under any MPI, or started by hand. MPI says how many processes there are and which one this is; where
# process 0 is we say ourselves, for not every MPI does.
#
#   HOSTS=node1:8,node2:8 experiments/launch/mpirun.sh --config=experiments/configs/soda_imagenet.py --workdir=/shared/run1
#
# By hand, the same on each of two hosts, but for the last number:
#   python -m experiments.train ... --coordinator=node1:55527 --processes=2 --process=0
set -euo pipefail
first=${HOSTS%%[:,]*}
# One process a GPU; Open MPI tells each process its number on its host, by which JAX gives it one.
exec mpirun --host "$HOSTS" --tag-output -x PATH -x VIRTUAL_ENV \
  python -m experiments.train --coordinator="$first:${PORT:-55527}" "$@"
