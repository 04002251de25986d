"""Worker processes make the very batches that the process itself would make; one test, they start slowly."""

import numpy as np

from data.pipeline import training_batches
from data.views import Views
from tests import prepared_data as prepared

VIEWS = Views(image_size=28, source_size=28, channels=1)


def batches(steps: range, workers: int, **process: int) -> list[dict]:
    options = {"workers": workers, "threads": 1, "start_step": steps.start, **process}
    with training_batches(prepared.single(1), VIEWS, batch=8, seed=0, **options) as stream:
        return [{name: np.array(value) for name, value in next(stream).items()} for _ in steps]


def test_workers_change_nothing_also_after_a_restart():
    whole = batches(range(6), workers=0)
    for steps, workers in ((range(5), 1), (range(1, 6), 2), (range(4), 4)):
        for step, batch in zip(steps, batches(steps, workers), strict=True):
            assert all((batch[name] == whole[step][name]).all() for name in whole[step]), (workers, step)


def test_workers_of_the_second_of_two_processes_make_its_half_of_every_batch():
    whole = batches(range(3), workers=0)
    half = batches(range(3), workers=2, process_index=1, process_count=2)
    for all_of_it, ours in zip(whole, half, strict=True):
        assert all((ours[name] == all_of_it[name][4:]).all() for name in ours)
