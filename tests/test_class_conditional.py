"""A DDAE that is told classes: what training tells it, that features know none, drawing by class, what is refused."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image

from experiments import build, hooks, images, methods, networks, teachers
from experiments.drawing import Steps, class_titles, numbered_noise
from experiments.job import check_classes, initialiser
from experiments.runs import Run
from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.methods.base import to_float
from soda_jax.methods.masking import Guidance
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import put_rows
from tests import prepared_data, small_job, tiny
from tests.test_build import config

NET = tiny.dit(class_count=3, dropout=0.0)
TOLD = tiny.ddae(denoiser=NET, tap="block_1", draws=0, class_dropout=0.0)
TABLE = np.random.default_rng(1).normal(size=(4, 16)).astype(np.float32)  # the last row is the null class
LABELS = np.arange(16) % 3
NULL = np.full(16, 3)
KEYS = jax.random.split(jax.random.key(1), 16)
KEYS_OF_CONFIG = {
    "method": "ddae",
    "model.denoiser": "dit",
    "model.dit_size": "custom",
    "model.dit_width": 8,
    "model.dit_depth": 1,
    "model.dit_heads": 2,
    "model.patch": 2,
    "diffusion.schedule": "linear",
    "ddae.tap": "block_1",
    "ddae.classes": 5,
    "monitor.every_images": 0,
}


def variables(table=TABLE):
    """Of TOLD, with this table of classes."""
    params = tiny.variables(TOLD)["params"]["denoiser"]
    return {
        "params": {"denoiser": {**params, "class": {"embedding": jnp.asarray(table)}}},
        "batch_stats": {},
    }


def loss(method=TOLD, table=TABLE, labels=LABELS, train=True):
    batch = {**tiny.batch(), "labels": jnp.asarray(labels, jnp.int32)[:, None]}
    return float(compiled_loss(method, train)(variables(table), batch))


@functools.cache
def compiled_loss(method, train):
    return jax.jit(lambda v, b: method.loss(v, b, KEYS, train)[0])


def dropping(rate):
    return dataclasses.replace(TOLD, class_dropout=rate)


# Training ---------------------------------------------------------------------------------------------------


def test_the_loss_is_that_of_the_label():
    """Another label, another loss; but classes may be numbered otherwise, if their table is."""
    assert abs(loss() - loss(labels=(LABELS + 1) % 3)) > 1e-4
    renumbered = TABLE[[2, 0, 1, 3]]  # row 1 is what row 0 was
    assert loss(table=renumbered, labels=(LABELS + 1) % 3) == pytest.approx(loss(), rel=1e-6)


def test_all_dropped_is_the_null_class_and_only_training_drops():
    always = dropping(1 - 1e-9)
    without = loss(table=np.tile(TABLE[3], (4, 1)))
    assert loss(always) == loss(always, labels=(LABELS + 1) % 3) == pytest.approx(without, rel=1e-6)
    assert abs(loss(always) - loss()) > 1e-4
    assert loss(always, train=False) == loss(train=False)


def test_an_examples_draw_is_its_own_and_as_often_as_it_should_be():
    method, keys = dropping(0.3), jax.random.split(jax.random.key(2), 2000)
    labels = jnp.arange(2000, dtype=jnp.int32)[:, None] % jnp.array([[3, 2]])
    told = np.asarray(method.classes({"labels": labels}, keys, True))
    kept = told != 3
    np.testing.assert_array_equal(told[kept], np.asarray(labels[:, 0])[kept])
    assert 0.26 < 1 - kept.mean() < 0.34
    some = np.arange(1999, 0, -5)
    again = method.classes({"labels": labels[some]}, keys[some], True)
    np.testing.assert_array_equal(again, told[some])
    assert tiny.ddae().classes({}, keys, True) is None


# Features ---------------------------------------------------------------------------------------------------


def test_features_are_those_of_the_null_class():
    """No other row of the table is looked at; of the net up to its tap likewise."""
    seen, encode = tiny.batch()["target"], jax.jit(TOLD.encode)
    found, others, nulls = (
        encode(variables(table), seen)["z"]
        for table in (TABLE, np.concatenate([TABLE[:3] + 1, TABLE[3:]]), TABLE + 1)
    )
    np.testing.assert_array_equal(found, others)
    assert jnp.abs(found - nulls).max() > 1e-3
    params = variables()["params"]["denoiser"]
    needed = {name: params[name] for name in ("time", "class", "embed", "block_1")}
    z = jax.jit(TOLD.tapped().apply)({"params": needed}, to_float(seen))[0]
    np.testing.assert_allclose(z, found, rtol=1e-4, atol=1e-5)


# Drawing ----------------------------------------------------------------------------------------------------

XT, T = jax.random.normal(jax.random.key(7), (16, 8, 8, 1)), jnp.full(16, 0.5)
CLASSES = jnp.asarray(LABELS, jnp.int32)


def eps(classes=CLASSES, guidance=0.0, table=TABLE):
    return compiled_eps(guidance)(variables(table), classes)


@functools.cache
def compiled_eps(guidance):
    return jax.jit(lambda v, classes: TOLD.guided_denoise(v, classes, guidance)(XT, T))


def test_guidance_leads_away_from_the_null_class():
    led, unled, weight = eps(), eps(None), 0.7
    np.testing.assert_allclose(
        eps(guidance=weight), (1 + weight) * led - weight * unled, rtol=1e-4, atol=1e-5
    )
    outside = Guidance(weight=weight, interval=(0.6, 1.0))
    np.testing.assert_allclose(eps(guidance=outside), led, rtol=1e-5, atol=1e-6)
    assert jnp.abs(led - unled).max() > 1e-3


def test_without_guidance_the_null_class_is_not_asked_and_without_classes_it_alone():
    unknown = np.concatenate([TABLE[:3], np.full((1, 16), np.nan, np.float32)])
    np.testing.assert_array_equal(eps(), eps(table=unknown))
    np.testing.assert_array_equal(eps(None, 2.0), eps(None))
    np.testing.assert_allclose(eps(None), eps(jnp.asarray(NULL, jnp.int32)), rtol=1e-5, atol=1e-6)


def test_an_image_is_of_its_class_whatever_the_others_are_of():
    @jax.jit
    def drawn(noise, classes):
        sampler, key = Sampler(steps=2), jax.random.key(0)
        return TOLD.generate(variables(), noise, sampler, key, classes=classes, guidance=0.5)

    whole, turned = drawn(XT, CLASSES), drawn(XT[::-1][:3], CLASSES[::-1][:3])
    np.testing.assert_allclose(turned, whole[::-1][:3], atol=1e-4)
    assert jnp.abs(drawn(XT, CLASSES[::-1]) - whole).max() > 1e-2


def test_images_on_disk_are_of_the_classes_in_turn_under_the_guidance_of_the_config():
    c = config({"samples.steps": 2, "samples.guidance": 0.5})
    shape, mesh, numbers = (8, 8, 1), make_mesh(devices=jax.devices()[:1]), np.array([4, 0, 11, 5])
    spec = {"target": jax.ShapeDtypeStruct((1, *shape), jnp.uint8)}
    run = Run(workdir=None, config=c, method=TOLD, spec=spec, step=None, data_info={})
    with Steps(4, 2) as steps:
        draw = images.generator(run, 3, steps, mesh)
        found = draw(jax.device_put(variables()), put_rows({"noise": numbers}, mesh))
    noise = numbered_noise(jax.random.key(3), jnp.asarray(numbers), shape)
    classes = jnp.asarray(numbers % 3, jnp.int32)
    expected = TOLD.generate(
        variables(), noise, Sampler(steps=2), jax.random.key(0), classes=classes, guidance=0.5
    )
    np.testing.assert_allclose(found, (np.asarray(expected) + 1) * 127.5, atol=1)


@pytest.mark.parametrize(
    ("count", "classes", "shape", "by_class"),
    [
        (1024, 0, (10, 10), False),
        (1024, 10, (10, 10), True),
        (1024, 1000, (10, 10), False),
        (25, 10, (10, 2), True),
        (9, 10, (3, 3), False),
        (50, 3, (3, 10), True),
    ],
)
def test_a_row_of_each_of_few_classes_is_shown(count, classes, shape, by_class):
    numbers, found = images.shown(count, classes)
    assert numbers.shape == shape and found == by_class and numbers.max() < count
    assert len(np.unique(numbers)) == numbers.size
    if by_class:
        np.testing.assert_array_equal(
            numbers % classes, np.broadcast_to(np.arange(classes)[:, None], numbers.shape)
        )


def test_the_picture_of_training_has_a_row_of_a_class(tmp_path):
    """Two rows for five classes: the first and the third, and no other is looked at."""
    job = small_job.job(tmp_path, KEYS_OF_CONFIG)
    state, paint = jax.jit(initialiser(job.config, job.method, job.spec))(), hooks.sampling(job)
    rng = np.random.default_rng(0)
    params = jax.tree.map(
        lambda x: x + 0.3 * rng.normal(size=x.shape).astype(np.float32), jax.device_get(state.ema_params)
    )

    def picture(row):
        table = params["denoiser"]["class"]["embedding"].copy()
        table[row] += 3
        moved = {"denoiser": {**params["denoiser"], "class": {"embedding": table}}}
        paint(jax.device_put(state.replace(ema_params=moved), job.shardings), 0)
        with Image.open(tmp_path / "samples" / "step_00000000.png") as image:
            assert "by class, ddim in 2 steps" in image.info["Description"]
            return np.asarray(image, int)

    plain = picture(4)
    upper, lower = ((plain != picture(row)).any((1, 2)) for row in (0, 2))
    half = len(plain) // 2
    assert upper[:half].any() and not upper[half:].any()
    assert lower[half:].any() and not lower[:half].any()
    for row in (1, 3, 5):
        np.testing.assert_array_equal(picture(row), plain)


def test_classes_are_called_by_their_names():
    assert class_titles({"label": ["cat", "dog", "emu"]}, [0, 2]) == ["cat", "emu"]
    assert class_titles({}, [0, 2]) == ["class 0", "class 2"]


# Config -----------------------------------------------------------------------------------------------------


def test_the_keys_reach_the_net_the_batch_and_a_teacher():
    c = config({**KEYS_OF_CONFIG, "ddae.class_dropout": 0.25})
    spec = build.batch_spec(c)
    method = methods.method(c, spec)
    assert (method.class_count, method.class_dropout) == (5, 0.25)
    assert spec["labels"].shape == (c.train.batch, 1) and build.views(c).labels
    assert teachers.teacher_keys(c)["classes"] == 5
    c.ddae.classes = 0
    assert "labels" not in build.batch_spec(c) and not build.views(c).labels
    assert methods.method(c, build.batch_spec(c)).class_count == 0


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"model.denoiser": "unet", "ddae.tap": "out_2"},
            r"ddae\.classes=5 needs model\.denoiser='dit', found 'unet'",
        ),
        ({"ddae.classes": -1}, r"ddae\.classes must be 0 \(none\) or the classes of the data set, found -1"),
        ({"ddae.class_dropout": 1.0}, r"ddae\.class_dropout must be a probability in \[0, 1\), found 1\.0"),
        ({"ddae.class_dropout": -0.1}, r"ddae\.class_dropout must be a probability in \[0, 1\), found -0\.1"),
    ],
)
def test_what_cannot_be_is_told_by_key(changes, words):
    c = config({**KEYS_OF_CONFIG, **changes})
    with pytest.raises(ValueError, match=words):
        methods.method(c, build.batch_spec(c))


def test_guidance_of_a_net_that_is_told_nothing_is_refused_before_it_trains(tmp_path):
    changes = {**KEYS_OF_CONFIG, "ddae.classes": 0, "samples.guidance": 0.5}
    with pytest.raises(ValueError, match=r"samples\.guidance=0\.5: this net is told nothing"):
        small_job.job(tmp_path, changes)
    assert networks.class_guidance(config({**changes, "samples.guidance": 0.0}), 0).weight == 0
    assert networks.class_guidance(config(changes), 5).weight == 0.5


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ({}, r"ddae\.classes=5: data set 'single1' has no labels, so set 0"),
        ({"label": 10}, r"ddae\.classes=5: data set 'single1' has {'label': 10}, so set 10"),
        ({"hue": 5, "bright": 2}, r"has {'hue': 5, 'bright': 2}, so set 0: a net can be told of a single"),
    ],
)
def test_a_data_set_of_other_labels_is_refused_with_what_to_set(labels, words):
    dataset = dataclasses.replace(prepared_data.single(1), labels=labels)
    with pytest.raises(ValueError, match=words):
        check_classes(config(KEYS_OF_CONFIG), dataset)
    check_classes(config({**KEYS_OF_CONFIG, "ddae.classes": 0}), dataset)
    check_classes(config({"ddae.classes": 5}), dataset)  # SODA looks at none
