"""The monitor and the pictures of training on 1 and on 8 devices: the same, their rows and memory shared out."""

import jax
import numpy as np
import pytest
from PIL import Image

from experiments import hooks
from experiments.job import initialiser
from soda_jax.parallel.collectives import collectives
from soda_jax.parallel.sharding import put_rows
from soda_jax.training.state import ema_variables
from tests import small_job

SETTINGS = {"mesh.smallest": 100, "monitor.batch": 24, "samples.count": 3, "samples.guidance": 1.0}


def job(folder, data, fsdp):
    return small_job.job(folder, SETTINGS | {"mesh.data": data, "mesh.fsdp": fsdp})


@pytest.fixture(scope="module")
def weights(tmp_path_factory):
    """Of a small SODA that draws something: a fresh one predicts zero."""
    one = job(tmp_path_factory.mktemp("one"), 1, 1)
    state = jax.device_get(jax.jit(initialiser(one.config, one.method, one.spec))())
    rng = np.random.default_rng(0)

    def moved(x):
        return x + 0.05 * rng.normal(size=x.shape).astype(np.float32)

    return state.replace(ema_params=jax.tree.map(moved, state.ema_params))


@pytest.fixture(scope="module")
def made(weights, tmp_path_factory):
    """(data, fsdp) -> what the monitor says, and the picture; made once."""
    done = {}

    def make(data, fsdp):
        if (data, fsdp) not in done:
            j = job(tmp_path_factory.mktemp("mesh"), data, fsdp)
            state = jax.device_put(weights, j.shardings)
            hooks.sampling(j)(state, 0)
            picture = np.asarray(Image.open(j.workdir / "samples" / "step_00000000.png"))
            done[data, fsdp] = hooks.monitoring(j, lambda text: None)(state, 0), picture.astype(int)
        return done[data, fsdp]

    return make


@pytest.mark.parametrize("mesh", [(8, 1), (2, 4)])
def test_readings_and_pictures_are_the_same_on_one_device_and_on_eight(made, mesh):
    (one, drawn), (many, redrawn) = made(1, 1), made(*mesh)
    assert one.keys() == many.keys() and one["monitor/gradient_norm"] > 0
    np.testing.assert_allclose(list(many.values()), list(one.values()), rtol=1e-4, atol=1e-5)
    assert drawn.std() > 20 and np.abs(drawn - redrawn).max() <= 1


@pytest.mark.parametrize(
    ("mesh", "batch", "rows"),
    [
        ((1, 1), 24, (24, 3)),
        ((1, 1), 8, (8, 1)),
        ((8, 1), 9, (16, 2)),
        ((8, 1), 2, (8, 1)),
        ((2, 2), 25, (32, 4)),
    ],
)
def test_the_monitor_holds_no_more_than_a_training_step(tmp_path, mesh, batch, rows):
    """Eight images a step: (images in all, parts); each device has equally many in each part."""
    j = small_job.job(tmp_path, {"monitor.batch": batch, "mesh.data": mesh[0], "mesh.fsdp": mesh[1]})
    size, parts = hooks.monitor_size(j)
    assert (size, parts) == rows and size // (parts * j.mesh.size) <= 8 // j.mesh.size


def test_a_batch_that_cannot_be_shared_evenly_is_said_to_grow(tmp_path, weights):
    said = []
    j = small_job.job(tmp_path, {"monitor.batch": 9, "mesh.data": 8})
    hooks.monitoring(j, said.append)
    assert said == ["latent monitor: 16 images for monitor.batch=9, to share them evenly"]


def test_the_sampler_gathers_parameters_and_at_the_end_the_pictures(tmp_path):
    j = job(tmp_path, 2, 4)
    host = hooks.fixed_batch(j.config, j.dataset, 3)
    draw = hooks.generator(j, host["target"].shape[1:])
    found = collectives(draw.lower(ema_variables(j.abstract), put_rows(host, j.mesh)).compile().as_text())
    assert {c.kind for c in found} == {"all-gather"} and not any(c.in_loop for c in found)
    cut = [place for place in jax.tree.leaves(ema_variables(j.shardings)) if "fsdp" in place.spec]
    assert sum(len(c.shapes) for c in found) == len(cut) + 1
    assert [c.shapes for c in found if c.shapes[0][0] == "u8"] == [(("u8", (8, 8, 8, 1)),)]
