"""Trains the small job and kills itself, no time to tidy up: `python -m tests.killed_job DIR STEPS DATA`."""

import os
import signal
import sys

import jax

from tests import prepared_data, small_job


class KillAt(small_job.StopAt):
    """SIGKILL instead of a request."""

    def __call__(self) -> bool:
        if super().__call__():
            os.kill(os.getpid(), signal.SIGKILL)
        return False


if __name__ == "__main__":
    jax.config.update("jax_num_cpu_devices", 8)
    workdir, steps, data_dir = sys.argv[1:]
    prepared_data.data_dir = lambda: data_dir  # what the test prepared
    small_job.run(workdir, stop=KillAt(int(steps)))
