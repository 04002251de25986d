"""Who am I among the processes of a run: one process is the common case, and everything here is then free."""

import jax
import numpy as np
from jax.experimental import multihost_utils


def process_index() -> int:
    """Number of this process, from 0."""
    return jax.process_index()


def process_count() -> int:
    """How many processes take part."""
    return jax.process_count()


def is_main() -> bool:
    """True in the one process that prints and writes metrics and pictures."""
    return process_index() == 0


def any_process(flag: bool) -> bool:
    """True in every process if the flag is set in one; with several processes it waits for all of them."""
    if process_count() == 1:
        return flag
    with jax.transfer_guard("allow"):  # the loop forbids transfers that nobody asked for; this one is meant
        return bool(np.any(multihost_utils.process_allgather(np.asarray(flag))))


def preempted(step: int) -> bool:
    """True, at one and the same step in all processes, once one of them was told to end.

    By SIGTERM, or by the notice that a platform gives before it takes a host away: JAX's service picks a step that
    no process has passed. To be asked in each step, by every process; False where there is only one.
    """
    return process_count() > 1 and multihost_utils.reached_preemption_sync_point(step)
