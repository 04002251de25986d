"""Pictures of a run: which latents and noises are drawn, and that the same command draws the same."""

import dataclasses

import jax
import numpy as np
import pytest

from data.views import Views
from experiments import build, drawing, methods, pictures, runs, sample
from experiments.drawing import Draw, batch_size, draw
from experiments.runs import open_run
from soda_jax.nn.rays import Rays
from soda_jax.parallel.mesh import make_mesh
from soda_jax.report.page import png_size
from soda_jax.training.checkpoints import Checkpoints
from soda_jax.training.state import create
from tests import prepared_data, small_run, tiny


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A small run at step 4 that samples in 2 steps."""
    return write_run(tmp_path_factory.mktemp("run"), steps=(4,))


def write_run(folder, steps):
    """config.json, and checkpoints of drawn weights: no initialiser has to be compiled."""
    config = small_run.config(small_run.dataset())
    config.samples.steps = 2
    runs.write_config(folder, config, {}, runs.data_info(build.dataset(config)))
    spec = build.batch_spec(config)
    method, optimizer = methods.method(config, spec), build.optimizer(config)
    abstract = jax.eval_shape(lambda key: create(method, optimizer, key, spec), jax.random.key(0))
    rng = np.random.default_rng(0)
    state = jax.tree.map(lambda x: jax.device_put(rng.uniform(0.1, 0.3, x.shape).astype(x.dtype)), abstract)
    with Checkpoints(folder / "checkpoints", keep=3, metadata={}) as checkpoints:
        for step in steps:
            checkpoints.save(step, state, {})
    return folder


def artist(devices=8):
    """Encode and paint of a tiny SODA at 8 x 8 grey pixels, and its latents of 12 images."""
    config, method = small_run.config(), tiny.soda()
    config.data.update(image_size=8, source_size=8, channels=1)
    config.samples.steps = 2
    variables = jax.jit(lambda key: method.init(key, tiny.spec(tiny.batch())))(jax.random.key(0))
    return draw(config, method, variables, 0, make_mesh(devices=jax.devices()[:devices]))


@pytest.fixture(scope="module")
def eight():
    """`artist` on eight devices, and twelve latents."""
    encode, paint = artist()
    return paint, 3 * encode(np.asarray(tiny.batch(12)["source"]))


def test_the_main_draws_three_pictures_and_finds_them_again(workdir, capsys):
    arguments = [f"--workdir={workdir}", "--count=3"]
    assert sample.main(arguments) == 0
    paths = [workdir / "samples" / f"4_{kind}.png" for kind in pictures.KINDS]
    sizes, cell = [png_size(path.read_bytes()) for path in paths], 128 + 6
    assert sizes[0][0] == cell * (2 + pictures.GENERATED) and sizes[0][1] // cell == 3
    assert sizes[1][0] == cell * (2 + pictures.FRAMES) and sizes[1][1] // cell == pictures.PAIRS
    assert sizes[2][0] == cell * (2 + 3 + 2)  # 3 sections
    before = [path.stat().st_mtime_ns for path in paths]
    assert sample.main(arguments) == 0
    assert "there already" in capsys.readouterr().out
    assert [path.stat().st_mtime_ns for path in paths] == before


def test_what_changes_a_picture_changes_its_description(workdir):
    run = open_run(workdir)
    words = {
        pictures.description(run, count, seed, weights)
        for count in (3, 4)
        for seed in (0, 1)
        for weights in ("0123456789abcdef", "f" * 16)
    }
    assert len(words) == 8
    said = "Step 4 (weights 01234567), 3 test images, never trained on, seed 1, DDIM in 2 steps; the denoiser is "
    assert said + "not told which view to paint." in words
    posed = dataclasses.replace(run, method=dataclasses.replace(run.method, rays=Rays()))
    told = "told the camera of the view that it paints."
    assert pictures.description(posed, 3, 1, "0123456789abcdef") == said + told


def test_pictures_do_not_depend_on_the_number_of_devices(eight):
    paint, z = eight
    job = Draw(z=z.reshape(3, 4, 3, 2), noise=np.arange(12).reshape(3, 4))
    (many,), (one,) = paint([job]), artist(devices=1)[1]([job])
    assert np.abs(many.astype(int) - one).max() <= 1
    assert many.std() > 20


def test_sources_and_targets_are_two_cameras_of_one_test_scene():
    views = Views(image_size=16, source_size=16, pair="pose")
    columns = pictures.two_views(prepared_data.posed().split("test"), [0, 2, 4], views, seed=0)
    keys = np.stack([columns[name][:, 0, 0, 0] for name in ("source", "target")])
    scenes, cameras = keys // 10, keys % 10
    np.testing.assert_array_equal(scenes[0], scenes[1])
    assert len(set(scenes[0])) == 3 and set(scenes[0]) <= {8, 9, 10, 11, 12}  # those of the test split
    assert (cameras[0] != cameras[1]).all()


def test_plain_views_are_the_stored_pixels():
    views = build.views(small_run.config())
    images = pictures.plain_views(prepared_data.posed().split("test"), [1], views)["target"]
    key = int(images[0, 0, 0, 0])
    assert key % 10 == 0  # the first camera
    np.testing.assert_array_equal(images[0], prepared_data.noise(key, 16, 16, 3))


def test_equal_latents_and_noises_give_equal_images_and_others_do_not(eight):
    paint, z = eight
    (images,) = paint([Draw(z=z[None, [0, 0, 0, 1]], noise=np.array([[0, 1, 0, 0]]))])
    np.testing.assert_array_equal(images[0, 0], images[0, 2])
    for other in (1, 3):
        assert (images[0, 0] != images[0, other]).any()


def test_jobs_are_drawn_together_and_handed_back_in_their_shapes(eight):
    paint, z = eight
    both = Draw(z=z[:6].reshape(2, 3, 3, 2), noise=np.arange(6).reshape(2, 3))
    images, again = paint([both, Draw(z=both.z[1:, 1:], noise=both.noise[1:, 1:])])
    assert images.shape == (2, 3, 8, 8, 1)
    np.testing.assert_allclose(images[1:, 1:].astype(int), again, atol=1)


def test_progress_counts_every_step_of_every_batch(eight, capsys):
    paint, z = eight
    paint([Draw(z=z[None], noise=np.arange(12)[None])])
    out = capsys.readouterr().out
    assert "drawing 12 images in 2 steps" in out and "2/2 steps" in out


def test_each_drawing_gets_the_camera_of_its_row():
    """A posed method whose cameras alone differ between rows, drawn together and row by row."""
    config, method = small_run.config(), tiny.soda(denoiser=tiny.Denoiser(channels=1), rays=Rays())
    config.data.update(image_size=8, source_size=8, channels=1)
    config.samples.steps = 2
    encode, paint = draw(config, method, tiny.variables(method), 0, make_mesh(devices=jax.devices()[:2]))
    z = np.repeat(encode(np.asarray(tiny.batch(1)["source"])), 3, axis=0)
    cameras = {name: np.asarray(x) for name, x in tiny.cameras(3).items()}
    job = pictures.view_job(z, cameras)
    (together,) = paint([job])
    np.testing.assert_array_equal(job.cameras["target_camera"][:, 0], cameras["target_camera"])
    assert (together[0] != together[1]).any() and (together[1] != together[2]).any()
    for i in range(3):
        row = {name: x[i : i + 1] for name, x in cameras.items()}
        (alone,) = paint([pictures.view_job(z[i : i + 1], row)])
        np.testing.assert_allclose(alone[0].astype(int), together[i], atol=1)


def latents(rows):
    return np.arange(rows * 6, dtype=np.float32).reshape(rows, 3, 2)


def test_each_source_is_drawn_with_the_same_few_noises():
    job = pictures.view_job(latents(2), {})
    np.testing.assert_array_equal(job.noise, [[0, 1, 2, 3, 4]] * 2)
    assert (job.z == latents(2)[:, None]).all()


def test_a_strip_goes_from_a_to_b_in_equal_steps_with_one_noise():
    job = pictures.interpolation_job(latents(4), [(0, 3), (2, 1)], {})
    np.testing.assert_array_equal(job.z[0, [0, -1]], latents(4)[[0, 3]])
    np.testing.assert_allclose(np.diff(job.z[0], axis=0), np.full((6, 3, 2), 3.0), rtol=1e-5)
    assert [set(row) for row in job.noise.tolist()] == [{0}, {1}]
    assert pictures.fractions()[0] == "0.00" and pictures.fractions()[-1] == "1.00"


def test_each_swap_takes_one_section_of_b():
    z = latents(2)
    job = pictures.section_job(z, [(0, 1)], {})
    assert job.z.shape == (1, 5, 3, 2)
    np.testing.assert_array_equal(job.z[0, [0, -1]], z)
    for section in range(3):
        changed = (job.z[0, 1 + section] != z[0]).all(axis=-1)
        assert changed.tolist() == [i == section for i in range(3)]
        np.testing.assert_array_equal(job.z[0, 1 + section, section], z[1, section])
    assert pictures.section_titles(5) == ["z of A", "0", "1", "2", "z of B"]


def test_partners_differ_in_most_labels_and_nobody_comes_twice():
    labels = [{"shape": s, "hue": h} for s, h in [(0, 0), (0, 1), (1, 1), (1, 0)]]
    assert pictures.partners(labels) == [(0, 2), (1, 3)]
    assert pictures.partners([{}, {}, {}]) == [(0, 1)]


def test_the_examples_chosen_are_distinct_and_follow_the_seed():
    source = prepared_data.posed().split("test")
    chosen = pictures.choose(source, 4, seed=0)
    assert len(set(chosen)) == 4 and chosen == pictures.choose(source, 4, seed=0)
    assert sorted(pictures.choose(source, 99, seed=1)) == list(range(len(source)))


@pytest.mark.parametrize(("count", "devices"), [(1, 1), (33, 1), (76, 1), (76, 8), (256, 8), (257, 8)])
def test_batches_are_equal_few_and_fit_the_devices(count, devices):
    size, rounds = batch_size(count, devices)
    assert size % devices == 0 and size <= drawing.MOST * devices
    assert size * rounds >= count and size * rounds - count < size
    assert rounds == -(-count // (drawing.MOST * devices))


def test_what_cannot_be_drawn_is_said_in_one_line(workdir, tmp_path, capsys):
    (tmp_path / "empty").mkdir()
    empty = write_run(tmp_path / "empty", steps=())
    for arguments, words in [
        ([f"--workdir={tmp_path}/none"], "expected a run"),
        ([f"--workdir={empty}"], "has no checkpoint yet"),
        ([f"--workdir={workdir}", "--step=7"], "--step=7"),
        ([f"--workdir={workdir}", "--count=0"], "--count must be 1 or more"),
    ]:
        assert sample.main(arguments) == 1
        error = capsys.readouterr().err
        assert words in error and error.count("\n") == 1


def test_a_split_of_one_image_has_no_pair(workdir):
    run = open_run(workdir)
    config = run.config.copy_and_resolve_references()
    config.data.test_split = "test[:1]"
    with pytest.raises(ValueError, match=r"2 test examples or more, found 1: change data\.test_split"):
        pictures.source_of(dataclasses.replace(run, config=config))


def test_data_without_a_test_split_is_drawn_from_what_was_trained_on(workdir):
    run = open_run(workdir)
    config = run.config.copy_and_resolve_references()
    config.data.test_split = "none"
    alone = dataclasses.replace(run, config=config, data_info={"sizes": {"train": 24}})
    assert len(pictures.source_of(alone)) == 24
    assert "3 images that were trained on" in pictures.description(alone, 3, 0, "0" * 16)


def test_guidance_by_chosen_sections_reaches_the_pictures(workdir):
    """Strengthening no section but one changes the picture otherwise than strengthening all."""
    run, variables = open_run(workdir), open_run(workdir).ema_variables()
    job = Draw(
        z=np.random.default_rng(0).normal(size=(1, 1, 3, 2)).astype(np.float32), noise=np.zeros((1, 1), int)
    )

    def drawn(guidance, sections):
        config = run.config.copy_and_resolve_references()
        config.samples.update(guidance=guidance, guide_sections=sections)
        return pictures.draw(config, run.method, variables, 0)[1]([job])[0]

    plain, all_of_them, one = drawn(0.0, ()), drawn(5.0, ()), drawn(5.0, (1,))
    assert (plain != all_of_them).any() and (plain != one).any() and (one != all_of_them).any()
