"""Keys of rays, of several sources and of cross-attention become parts of the method; a wrong one is named."""

import jax
import jax.numpy as jnp
import pytest

from experiments import build, methods, networks
from soda_jax.nn.rays import Projecting, Rays
from tests.test_build import config, make

POSED = {
    "data.sources": 3,
    "data.source_size": 32,
    "data.image_size": 16,
    "model.channels": 32,
    "model.rays": "unit_sphere",
    "model.ray_encoding": "octaves",
    "model.ray_frequencies": 5,
    "model.source_rays": True,
    "model.source_lens": (1.0, 2.0, 0.5, 0.5),
    "model.rgb_projection": 7,
    "model.cross_attention": True,
    "train.batch": 8,
}


def posed(changes=None):
    c = config({**POSED, **(changes or {})})
    spec = build.batch_spec(c)
    return c, methods.method(c, spec), spec


@pytest.fixture(scope="module")
def variables():
    """Shapes of those of POSED."""
    _, method, spec = posed()
    return jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))


def test_every_key_reaches_the_method():
    _, method, _ = posed({"model.ray_scale": 2.0, "model.ray_radius": 3.0})
    more = {"encoding": "octaves", "frequencies": 5}
    assert method.rays == Rays(kind="unit_sphere", scale=2.0, radius=3.0, **more)
    assert method.source_rays and method.cross_attention and method.lens == (1.0, 2.0, 0.5, 0.5)
    _, method, _ = posed({"model.source_rays": False, "model.ray_frame": "world"})
    assert method.rays == Rays(kind="unit_sphere", frame="world", **more)


def test_networks_behind_a_mixture_keep_their_sizes():
    _, method, _ = posed()
    assert method.encoder.network.latent_dim == method.encoder.latent_dim == 130
    assert method.denoiser.network.cross_attention and method.denoiser.sections == method.sections == 13


def test_several_sources_and_their_cameras_are_in_the_spec():
    c, _, spec = posed()
    assert {name: x.shape for name, x in spec.items()} == {
        "source": (8, 3, 32, 32, 3),
        "target": (8, 16, 16, 3),
        "index": (8,),
        "source_camera": (8, 3, 4, 4),
        "target_camera": (8, 4, 4),
        "intrinsics": (8, 3, 3),
    }
    assert build.views(c).sources == 3 and build.views(c).cameras


def test_both_networks_see_mixed_colours_and_rays(variables):
    """7 mixtures of the colours, and 2 angles as 5 cosines and 5 sines each."""
    encoder, denoiser = (variables["params"][name] for name in ("encoder", "denoiser"))
    assert encoder["rgb"]["kernel"].shape == denoiser["rgb"]["kernel"].shape == (1, 1, 3, 7)
    assert encoder["network"]["stem"]["conv"]["kernel"].shape == (3, 3, 7 + 20, 64)
    assert denoiser["network"]["down_0_conv"]["kernel"].shape == (3, 3, 7 + 20, 32)
    assert denoiser["network"]["middle_block0"]["cross_attention"]["kv"]["kernel"].shape == (512, 2 * 64)
    assert "batch_stats" in variables and variables["batch_stats"]["encoder"]["network"]


def test_the_loss_of_other_resolutions_for_source_and_target_has_a_shape(variables):
    """Nothing is computed."""
    _, method, spec = posed()
    keys = jax.eval_shape(lambda key: jax.random.split(key, 8), jax.random.key(0))
    loss, aux = jax.eval_shape(method.loss, variables, spec, keys)
    assert loss.shape == () and jax.tree.structure(aux["batch_stats"]) == jax.tree.structure(
        variables["batch_stats"]
    )
    told = jax.eval_shape(method.condition, variables, spec["source"], spec)
    assert told.z.shape == (8, 13, 10) and told.context.shape == (8, 3 * 4 * 4, 512)
    one = jax.ShapeDtypeStruct((5, 32, 32, 3), jnp.uint8)
    assert jax.eval_shape(method.encode, variables, one)["z"].shape == (5, 130)


def test_by_default_nothing_is_wrapped_and_nothing_is_asked_for():
    c = config({"model.rays": "concat", "model.channels": 32})
    method = methods.method(c, build.batch_spec(c))
    assert not isinstance(method.encoder, Projecting) and not isinstance(method.denoiser, Projecting)
    assert method.lens is None and networks.cameras_alone(c) == {}
    c = config({"model.rgb_projection": 7})  # there is nothing to concatenate
    method = methods.method(c, build.batch_spec(c))
    assert not isinstance(method.encoder, Projecting) and not isinstance(method.denoiser, Projecting)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        (
            "model.ray_encoding",
            "fourier",
            r"model\.ray_encoding='fourier' is unknown: take one of none, sinus",
        ),
        (
            "model.ray_frame",
            "target",
            r"model\.ray_frame='target' is unknown: take one of source, world, both",
        ),
        ("model.ray_frame", "world", r"model\.source_rays=True: .* set model\.ray_frame='source'"),
        ("model.ray_frame", "both", r"model\.source_rays=True: .* set model\.ray_frame='source'"),
        ("model.ray_scale", 0.0, r"model\.ray_scale must be more than 0"),
        ("model.ray_frequencies", 0, r"model\.ray_frequencies must be more than 0, found 0"),
        ("model.rgb_projection", -1, r"model\.rgb_projection must be 0 .* found -1"),
        ("model.source_lens", (1.0, 1.0), r"model\.source_lens must be \(fx, fy, cx, cy\)"),
        ("model.source_lens", (0.0, 1.0, 0.5, 0.5), r"model\.source_lens must be"),
        ("model.rays", "none", r"model\.source_rays=True .* set model\.rays"),
        ("data.sources", 0, r"data\.sources = 0: expected 1 or more"),
    ],
)
def test_a_wrong_value_is_named(key, value, words):
    with pytest.raises(ValueError, match=words) as error:
        make({**POSED, key: value})
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher.dtype": "float16"}, "model.dtype='float16' is unknown"),
        ({"teacher.framework": "edm"}, "does not go with diffusion.schedule='linear'"),
        ({"teacher.resample": "pool"}, "model.resample='pool' is unknown"),
        ({"repfusion.time": "random"}, "repfusion.time='random' is unknown: take one of rl, uniform, fixed"),
        ({"repfusion.time": "fixed", "repfusion.t": 1000}, "within the teacher's 1000 times, found 1000"),
        ({"supervised.classes": (), "method": "supervised"}, "supervised.classes must hold"),
        ({"siamese.temperature": 0.0, "method": "simclr"}, "siamese.temperature must be more than 0"),
    ],
)
def test_what_other_methods_cannot_have_is_told_by_key(changes, words):
    c = config({"method": "repfusion", **changes})
    spec = build.batch_spec(c)
    with pytest.raises(ValueError, match=words):
        method = methods.method(c, spec)
        jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))
