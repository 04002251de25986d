"""Worker processes make the very batches that the process itself would make; one test, they start slowly."""

import numpy as np

from data.pipeline import training_batches
from data.views import Views
from tests import prepared_data as prepared

VIEWS = Views(image_size=28, source_size=28, channels=1)


def batches(steps: range, workers: int) -> list[dict]:
    with training_batches(
        prepared.single(1), VIEWS, batch=8, seed=0, workers=workers, threads=1, start_step=steps.start
    ) as stream:
        return [{name: np.array(value) for name, value in next(stream).items()} for _ in steps]


def test_workers_change_nothing_also_after_a_restart():
    whole = batches(range(6), workers=0)
    for steps, workers in ((range(5), 1), (range(1, 6), 2)):
        for step, batch in zip(steps, batches(steps, workers), strict=True):
            assert all((batch[name] == whole[step][name]).all() for name in whole[step]), (workers, step)
