"""Twenty stops at random steps in one run: it ends as the unbroken one, bit for bit, for every method."""

import random

import numpy as np
import pytest

from experiments import train
from soda_jax.training import checkpoints
from tests import small_job
from tests.small_config import BATCH

STEPS, STOPS = 60, 20
# name -> what its config needs; the losses that are remembered for drawing t must come back as well
METHODS = {"soda": {"diffusion.noise_levels": "resampled", "diffusion.level_bins": 4}}
# Between two saves there are lines of the log; stops fall on these, on readings of the latent, pictures and saves.
BUSY = {
    "train.images": STEPS * BATCH,
    "train.accumulation": 2,
    "train.log_every_images": 2 * BATCH,
    "optimizer.warmup_images": 25 * BATCH,
    "checkpoint.every_images": 5 * BATCH,
    "samples.every_images": 20 * BATCH,
    "monitor.every_images": 10 * BATCH,
}


def run_to_the_end(workdir, changes, stops=()):
    """The final state and log; `stops`: after how many steps each of the first runs is asked to end."""
    for steps in stops:
        assert small_job.run(workdir, changes, stop=small_job.StopAt(steps)).kind == "stopped"
    assert small_job.run(workdir, changes).kind == "finished"
    return checkpoints.load_as_saved(workdir / "checkpoints", STEPS), small_job.records(workdir)


@pytest.mark.parametrize("name", METHODS)
def test_twenty_random_stops_change_no_bit(name, tmp_path):
    changes = BUSY | METHODS[name] | {"method": name}
    job = small_job.job(tmp_path / "unbroken", changes)
    program = train.compile_step(job, print)
    places = sorted(random.Random(0).sample(range(1, STEPS), STOPS))
    steps = np.diff([0, *places]).tolist()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "compile_step", lambda job, say: program)
        state, log = run_to_the_end(tmp_path / "unbroken", changes)
        broken_state, broken_log = run_to_the_end(tmp_path / "broken", changes, steps)
    for every in (20, 10, 5, 2):
        assert {place % every == 0 for place in places} == {place < 25 for place in places} == {True, False}
    assert broken_log == log and len(log) == STEPS // 2
    assert state.keys() == broken_state.keys() and len(state) > 300
    for key, value in state.items():
        np.testing.assert_array_equal(value, broken_state[key], err_msg=key)
    pictures = [sorted((tmp_path / which / "samples").iterdir()) for which in ("unbroken", "broken")]
    assert [p.name for p in pictures[0]] == [p.name for p in pictures[1]] and len(pictures[0]) == 3
    for one, other in zip(*pictures, strict=True):
        assert one.read_bytes() == other.read_bytes()
