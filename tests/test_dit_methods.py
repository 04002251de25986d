"""DiT as the denoiser of the methods: keys of the config, features and taps, layers, cuts over devices, early exit."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import PartitionSpec as P

from experiments import build, methods, teachers
from experiments.configs import ddae_cifar10_dit, repfusion_cifar10, repfusion_fashion_mnist
from experiments.runs import write_config
from soda_jax.export import encoders
from soda_jax.methods.base import to_float
from soda_jax.nn.dit import DiT
from soda_jax.parallel import sharding
from soda_jax.parallel.mesh import make_mesh
from tests import tiny
from tests.methods import OTHERS
from tests.test_build import config, make

TINY = {"model.dit_size": "custom", "model.dit_width": 8, "model.dit_depth": 4, "model.dit_heads": 2}
DIT = {"model.denoiser": "dit", "model.patch": 2, **TINY}
SODA = {**DIT, "model.latent_dim": 12, "data.image_size": 16, "data.source_size": 16}
DDAE = {**DIT, "method": "ddae", "diffusion.schedule": "linear", "ddae.tap": "block_2"}


def method_of(changes):
    c = config(changes)
    return methods.method(c, build.batch_spec(c))


def shapes(changes):
    """Of the variables of a method."""
    c = config(changes)
    spec = build.batch_spec(c)
    return jax.eval_shape(lambda key: methods.method(c, spec).init(key, spec), jax.random.key(0))


def test_every_key_reaches_the_denoiser_of_soda():
    more = {
        "model.grouping": "per_level",
        "model.dropout": 0.3,
        "model.remat": "blocks",
        "model.dtype": "bfloat16",
    }
    method = method_of({**SODA, **more, "data.channels": 1})
    sizes = {"width": 8, "depth": 4, "heads": 2, "patch": 2, "out_channels": 1, "grouping": "per_level"}
    assert method.denoiser == DiT(**sizes, dropout=0.3, remat="blocks", dtype=jnp.bfloat16)
    assert (method.sections, method.section_dim) == (3, 4)


def test_each_block_reads_a_section_and_the_patches_see_rays():
    params = shapes({**SODA, "model.rays": "concat"})["params"]["denoiser"]
    assert params["embed"]["kernel"].shape == (2 * 2 * (3 + 6), 8)
    assert params["out"]["kernel"].shape == (8, 2 * 2 * 3)
    assert {params[f"block_{k}"]["latent"]["kernel"].shape for k in (1, 2, 3, 4)} == {(3, 6 * 8)}


def test_every_key_reaches_the_net_of_ddae():
    method = method_of({**DDAE, "model.dropout": 0.2, "model.remat": "blocks", "ddae.augment": 0.1})
    expected = DiT(width=8, depth=4, heads=2, patch=2, dropout=0.2, remat="blocks", label_dim=9)
    assert method.denoiser == expected
    named = method_of({**DDAE, "model.dit_size": "XL", "model.patch": 8}).denoiser
    assert (named.width, named.depth, named.heads, named.patch) == (1152, 28, 16, 8)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"model.denoiser": "uvit"}, r"model\.denoiser='uvit' is unknown: take one of unet, dit"),
        ({"model.dit_size": "M"}, r"model\.dit_size='M' is unknown: take one of S, B, L, XL, custom"),
        ({"model.patch": 3}, r"model\.patch=3 is unknown: take one of 1, 2, 4, 8"),
        ({"model.dit_heads": 3}, r"model\.dit_width=8 must be a multiple of 4 and of model\.dit_heads=3"),
        ({"model.cross_attention": True}, r"model\.cross_attention=True needs model\.denoiser='unet'"),
        ({"model.latent_dim": 13}, r"model\.latent_dim=13 can't be cut into 4 equal sections: 12 and 16 fit"),
        (
            {"data.image_size": 20, "model.patch": 8},
            r"data\.image_size: 20x20 images do not fit model\.patch=8",
        ),
        ({"model.dtype": "float16"}, r"model\.dtype='float16'"),
        ({"model.grouping": "levels"}, r"model\.grouping='levels'"),
    ],
)
def test_a_wrong_value_is_named(changes, words):
    with pytest.raises(ValueError, match=words) as error:
        make({**SODA, **changes})
    assert "\n" not in str(error.value)


def test_a_tap_of_the_u_net_is_refused_with_those_that_there_are():
    with pytest.raises(ValueError, match=r"ddae\.tap: expected one of block_0, .*, block_4, found 'out_6'"):
        shapes({**DDAE, "ddae.tap": "out_6"})


@pytest.mark.parametrize("framework", ["ddpm", "edm"])
def test_ddae_reads_the_tap_and_the_middle_and_an_encoder_the_same(framework):
    """At clean images; the bundle's description gives the same encoder back."""
    method = tiny.ddae(framework, denoiser=tiny.dit(depth=3), tap="block_1", draws=0)
    variables, images = tiny.variables(method), tiny.batch()["target"]
    found = jax.jit(method.encode)(variables, images)
    assert found.keys() == {"block_0", "block_1", "block_2", "block_3", "z", "pooled"}
    np.testing.assert_array_equal(found["z"], found["block_1"])
    np.testing.assert_array_equal(found["pooled"], found["block_2"])
    encoder = encoders.restored(encoders.describe(method.tapped()))
    params = variables["params"]["denoiser"]
    needed = {name: params[name] for name in ("time", "embed", "block_1")}
    z = jax.jit(encoder.apply)({"params": needed}, to_float(images))[0]
    np.testing.assert_allclose(z, found["z"], rtol=1e-4, atol=1e-5)


def test_blocks_behind_the_tap_are_not_computed():
    """The compiler leaves them out where one map alone is asked for."""

    def work(tap):
        method = tiny.ddae(denoiser=tiny.dit(depth=3), tap=tap, draws=0)
        ask = jax.jit(lambda variables, images: method.layers(variables, images, 0.1)[tap])
        cost = ask.lower(tiny.variables(method), tiny.batch()["target"]).compile().cost_analysis()
        return cost["flops"]

    one, three = work("block_1"), work("block_3")
    assert 0.25 * three < one < 0.45 * three


@pytest.mark.slow
def test_soda_learns_with_it_and_it_listens_to_z():
    """200 steps on sixteen images; z of other images then makes a larger error."""
    method, batch = OTHERS["soda_dit"], tiny.batch()
    state, step = (
        jax.jit(functools.partial(tiny.create_state, method=method))(jax.random.key(0)),
        tiny.step(method),
    )
    losses = []
    for _ in range(200):
        state, metrics = step(state, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-20:]) < 0.25 * np.mean(losses[:5])
    variables = {"params": state.params, "batch_stats": state.batch_stats}
    z = method.latent(variables, batch["source"])

    @jax.jit
    def error(z):
        keys = jax.vmap(lambda k: jax.random.split(jax.random.key(k), 16))(jnp.arange(8))
        return jax.vmap(lambda k: method.loss_given_latent(variables, z, batch, k))(keys).mean()

    assert error(z[::-1]) > 1.15 * error(z)


def test_fine_tuning_knows_the_layers_up_to_the_tap_in_their_order():
    c = config({**DDAE, "method": "finetune", "finetune.method": "ddae", "data.image_size": 64})
    spec = build.batch_spec(c)
    layers = methods.method(c, spec).layers(spec)
    assert layers == [f"encoder/{name}" for name in ("time", "embed", "block_1", "block_2")]


def test_a_run_of_it_can_teach(tmp_path):
    """The keys of a teacher are those of the run, and its tap is one that it has."""
    c = config({**DDAE, "data.image_size": 32, "data.source_size": 32, "data.channels": 1})
    write_config(tmp_path, c, {}, {})
    student = repfusion_fashion_mnist.get_config(str(tmp_path))
    teacher = methods.method(student, build.batch_spec(student)).teacher
    assert teacher.denoiser == method_of(DDAE | {"data.channels": 1}).denoiser.clone(dropout=0.0)
    assert teacher.tap == "block_2" and teachers.teacher_keys(c)["dit_depth"] == 4
    assert repfusion_cifar10.get_config(str(tmp_path)).teacher.tap == "block_2"
    assert repfusion_cifar10.get_config().teacher.tap == "middle/branch"


@pytest.mark.parametrize(("size", "tap"), [("S", "block_6"), ("B", "block_6"), ("XL", "block_14")])
def test_ddae_reads_a_dit_halfway_whatever_its_size(size, tap):
    """Of XL where DDAE (arXiv 2303.09769) reads it."""
    assert ddae_cifar10_dit.get_config(size).ddae.tap == tap


def test_every_matrix_of_a_block_is_cut_over_fsdp_whatever_its_size():
    """Of DiT-S, none of whose matrices has 4 MiB; the few others are whole, and averages and moments lie alike."""
    c = config({"model.denoiser": "dit", "model.patch": 2, "model.latent_dim": 132, "mesh.fsdp": 4})
    spec = build.batch_spec(c)
    abstract = jax.eval_shape(lambda: methods.method(c, spec).init(jax.random.key(0), spec))["params"][
        "denoiser"
    ]
    tree = {"params": {"denoiser": abstract}, "mu": {"denoiser": abstract}}
    placed = build.shardings(c, tree, make_mesh(2, 4))
    cut = {sharding.name_of(path): place.spec for path, place in jax.tree.leaves_with_path(placed["params"])}
    blocks = {name: spec for name, spec in cut.items() if "/block_" in name and name.endswith("kernel")}
    assert len(blocks) == 12 * 6 and all("fsdp" in spec for spec in blocks.values())
    assert (
        cut["denoiser/block_7/attention/qkv/kernel"] == cut["denoiser/block_7/mlp0/kernel"] == P(None, "fsdp")
    )
    assert cut["denoiser/block_7/mlp1/kernel"] == P("fsdp")
    assert {spec for name, spec in cut.items() if name not in blocks} == {P()}
    assert placed["params"] == placed["mu"]
