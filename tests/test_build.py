"""A config becomes objects; a wrong value dies there with its key."""

import jax
import jax.numpy as jnp
import pytest
from jax.sharding import PartitionSpec

from experiments import build, methods, networks
from experiments.configs import default
from soda_jax.nn.rays import Rays
from soda_jax.nn.resnet import ResNet
from soda_jax.nn.vit import ViT
from tests import prepared_data


def config(changes: dict | None = None):
    """The default with dotted keys changed."""
    c = default.get_config()
    with c.unlocked():
        c.update_from_flattened_dict(changes or {})
    return c


def make(changes):
    """Everything that needs no files."""
    c = config(changes)
    spec = build.batch_spec(c)
    method = methods.method(c, spec)
    state = jax.eval_shape(lambda key: method.init(key, spec), jax.random.key(0))
    build.shardings(c, state, build.mesh(c))
    return build.views(c), networks.sampler(c), build.optimizer(c), build.lengths(c), build.mesh_plan(c)


@pytest.mark.parametrize(
    ("key", "value", "words"),
    [
        ("method", "ddpm", r"method='ddpm' is unknown: take one of soda"),
        ("data.image_size", 60, r"data.image_size=60 does not fit"),
        ("data.pair", "poses", r"data.pair"),
        ("data.crop_scale", (0.5, 1.5), r"data.crop_scale"),
        (
            "model.encoder",
            "resnet19",
            r"model.encoder='resnet19' .* resnet18, .* vit_B, mobil.*, wrn_28_2 \(any",
        ),
        ("model.stem", "tiny", r"model.stem='tiny'"),
        ("model.residual_gain", 2.0, r"model.residual_gain must be 0 to 1"),
        ("model.latent_dim", 128, r"model.latent_dim=128 .* 117 and 130 fit"),
        ("model.attention", (True,), r"model.attention has 1 entries"),
        ("model.patch", 3, r"model.patch=3 is unknown"),
        ("model.grouping", "levels", r"model.grouping='levels'"),
        ("model.dtype", "float16", r"model.dtype='float16' .* float32, bfloat16"),
        ("model.remat", "all", r"model.remat='all'"),
        ("model.mask_section", 1.0, r"model.mask_section must be a probability"),
        (
            "model.rays",
            "cube",
            r"model.rays='cube' is unknown: take one of none, concat, moment, sphere, unit_sphere",
        ),
        ("model.source_noise", -1.0, r"model.source_noise must be 0 or more"),
        ("diffusion.schedule", "sine", r"diffusion.schedule: expected one of"),
        ("diffusion.steps", -1, r"diffusion.steps: expected 0"),
        ("optimizer.learning_rate", 0.0, r"optimizer.learning_rate must be more than 0"),
        ("optimizer.schedule", "step", r"optimizer.schedule must be constant.cosine"),
        ("train.images", 0, r"train.images must be"),
        ("train.batch", 12, r"train.batch=12 must be a multiple of 8"),
        ("train.accumulation", 0, r"train.accumulation must be 1 or more"),
        ("samples.sampler", "euler", r"samples.sampler: expected one of"),
        ("samples.eta", 2.0, r"samples.eta"),
        ("mesh.fsdp", 0, r"mesh.fsdp must be -1 .* or 1 or more"),
        ("mesh.smallest", -1, r"mesh.smallest must be 0 or more bytes, found -1"),
        ("mesh.rules", ("qkv", "output"), r"mesh.rules must hold pairs .* found 'qkv'"),
        ("mesh.rules", (("qkv", "rows"),), r"mesh.rules='rows' is unknown: take one of .*, input, output"),
        ("mesh.rules", (("(", "fsdp"),), r"mesh.rules: '\(' is no regular expression"),
    ],
)
def test_a_wrong_value_is_named(key, value, words):
    with pytest.raises(ValueError, match=words) as error:
        make({key: value})
    assert "\n" not in str(error.value)


def test_the_default_is_made():
    views, sampler, _, lengths, plan = make({})
    assert (views.image_size, sampler.steps, lengths.batch, plan.devices) == (64, 50, 512, 8)


def test_encoders():
    resnet = networks.encoder(config({"model.encoder": "resnet50", "model.stem": "imagenet"}))
    assert isinstance(resnet, ResNet) and (resnet.depth, resnet.stem, resnet.width) == (50, "imagenet", 64)
    vit = networks.encoder(config({"model.encoder": "vit_S", "model.dtype": "bfloat16"}))
    assert isinstance(vit, ViT) and (vit.variant, vit.patch, vit.dtype) == ("S", 8, jnp.bfloat16)
    mobile = networks.encoder(config({"model.encoder": "mobilenetv2", "model.width_multiplier": 0.5}))
    assert (mobile.width, mobile.stem, mobile.last_map) == (0.5, "small", "last")
    wide = networks.encoder(config({"model.encoder": "wrn_28_2", "model.stem": "strided"}))
    assert (wide.depth, wide.widen, wide.stem) == (28, 2, "strided")
    assert resnet.latent_dim == vit.latent_dim == mobile.latent_dim == wide.latent_dim == 130


def test_every_key_of_the_model_and_the_diffusion_reaches_the_method():
    changes = {"model.channels": 64, "model.heads": 2, "model.dropout": 0.3, "model.remat": "blocks"}
    changes |= {"model.mask_all": 0.5, "diffusion.prediction": "v", "diffusion.steps": 10}
    c = config(changes | {"data.channels": 1})
    method = methods.method(c, build.batch_spec(c))
    unet = method.denoiser
    assert (unet.channels, unet.heads, unet.dropout, unet.remat, unet.out_channels) == (
        64,
        2,
        0.3,
        "blocks",
        1,
    )
    assert (method.mask_all, method.prediction, method.schedule.steps) == (0.5, "v", 10)


def test_the_spec_is_that_of_a_global_batch():
    spec = build.batch_spec(config({"data.source_size": 32, "train.batch": 16}))
    shapes = {name: (x.shape, str(x.dtype)) for name, x in spec.items()}
    assert shapes == {
        "source": ((16, 32, 32, 3), "uint8"),
        "target": ((16, 64, 64, 3), "uint8"),
        "index": ((16,), "int32"),
    }


def test_rays_bring_cameras_into_the_batch_and_the_method():
    c = config({"model.rays": "concat", "model.ray_scale": 3.0, "train.batch": 16})
    spec = build.batch_spec(c)
    found = {
        name: (x.shape, str(x.dtype)) for name, x in spec.items() if name not in ("source", "target", "index")
    }
    camera = ((16, 4, 4), "float32")
    assert found == {"source_camera": camera, "target_camera": camera, "intrinsics": ((16, 3, 3), "float32")}
    assert methods.method(c, spec).rays == Rays(kind="concat", scale=3.0)
    assert build.views(c).cameras and not build.views(config({})).cameras


def test_a_plan_for_a_pod_is_folded_onto_eight_devices():
    c = config({"mesh.data": 64, "mesh.fsdp": 2, "train.accumulation": 2})
    plan = build.mesh_plan(c)
    assert (plan.devices, plan.folded) == (8, 16) and dict(build.mesh(c).shape) == {"data": 4, "fsdp": 2}
    with pytest.raises(ValueError, match=r"mesh.data=64"):
        build.mesh_plan(config({"mesh.data": 64, "mesh.fold": False}))


def test_the_data_set_is_found_by_its_config():
    made = prepared_data.single(1)
    dataset = build.dataset(config({"data.name": made.name, "data.dir": str(prepared_data.data_dir())}))
    assert dataset.manifest == made.manifest
    with pytest.raises(ValueError, match=r"split 'dev'"):
        build.dataset(
            config(
                {"data.name": made.name, "data.dir": str(prepared_data.data_dir()), "data.train_split": "dev"}
            )
        )


def test_the_seed_gives_the_initial_key_and_no_step_has_it():
    keys = [jax.random.key_data(build.init_key(config({"seed": seed}))).tolist() for seed in (0, 0, 1)]
    assert keys[0] == keys[1] != keys[2]
    assert jax.random.key_data(jax.random.fold_in(jax.random.key(0), 0)).tolist() != keys[0]


@pytest.mark.parametrize("seed", [-1, 2**32, 2**64])
def test_a_seed_out_of_range_is_refused_with_its_key(seed):
    with pytest.raises(ValueError, match=rf"config.seed must be 0 to 2\^32 - 1, found {seed}"):
        build.init_key(config({"seed": seed}))


def test_the_lines_of_the_config_come_before_the_table():
    """One line cuts the head, which is too small for the rule of large arrays."""
    c = config({"mesh.fsdp": 2, "mesh.rules": ((r"head/kernel$", "output"),)})
    state = {"params": {"head": {"kernel": jax.ShapeDtypeStruct((8, 8), jnp.float32)}}}
    placed = build.shardings(c, state, build.mesh(c))
    assert placed["params"]["head"]["kernel"].spec == PartitionSpec(None, "fsdp")
    c.mesh.update(rules=(), smallest=8 * 8 * 4)
    assert build.shardings(c, state, build.mesh(c))["params"]["head"]["kernel"].spec == PartitionSpec("fsdp")
