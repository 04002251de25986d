"""Which part of a run is its frozen encoder, by method: one line of ENCODERS for each kind."""

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict

from experiments.runs import Run
from soda_jax.export.encoders import Encoder, in_float32
from soda_jax.methods.base import encoder_variables
from soda_jax.methods.ddae import DDAE
from soda_jax.methods.reading import Reading
from soda_jax.methods.repfusion import RepFusion
from soda_jax.types import Tree


def frozen(run: Run) -> Encoder:
    """The encoder of a run's step, with averaged weights. ValueError where there is none that sees images alone."""
    for kind, make in ENCODERS.items():
        if isinstance(run.method, kind):
            return make(run)
    where = f"export --workdir={run.config.prior.workdir}"
    raise ValueError(
        f"--workdir={run.workdir} has method={run.config.method!r}, whose encoder is that of another run: {where}"
    )


def reading(run: Run) -> Encoder:
    """The encoder of sources. ValueError where it sees their rays too."""
    if run.config.model.source_rays:
        raise ValueError(
            "model.source_rays=True: this encoder sees the rays of its images as well, which no reader of a bundle "
            "makes: export a run that was trained with model.source_rays=False"
        )
    module, variables = in_float32(run.method.encoder), encoder_variables(run.encoder_variables())
    return Encoder(module=module, variables=variables, image_shape=image_shape(run))


def student(run: Run) -> Encoder:
    """The same, with a z that is its pooled features, as RepFusion reads a student."""
    found = reading(run)
    params = found.variables["params"]
    width = params["head"]["kernel"].shape[0]
    head = {"kernel": jnp.eye(width), "bias": jnp.zeros(width)}
    variables = {**found.variables, "params": {**params, "head": head}}
    return Encoder(
        module=found.module.clone(latent_dim=width), variables=variables, image_shape=found.image_shape
    )


def tap(run: Run) -> Encoder:
    """A diffusion net up to its tap, for clean images. ValueError where its features are read from noise."""
    if run.method.draws:
        raise ValueError(
            f"ddae.draws={run.method.draws}: these features are read from images with fresh noise, which no reader of "
            "a bundle draws. Set --config.ddae.draws=0 (clean images), and the place where those are best, as "
            f"python -m experiments.probe --workdir={run.workdir} --grid --config.ddae.draws=0 finds it, in "
            "--config.ddae.tap and --config.ddae.level; or distil the net with method='repfusion' and export the "
            "student"
        )
    module, params = in_float32(run.method.tapped()), run.encoder_variables()["params"]["denoiser"]
    shape = image_shape(run)
    needed = jax.eval_shape(lambda key: module.init(key, jnp.zeros((1, *shape))), jax.random.key(0))["params"]
    variables = {"params": only(params, needed), "batch_stats": {}}
    return Encoder(module=module, variables=variables, image_shape=shape, features=("z",))


def only(params: Tree, needed: Tree) -> Tree:
    """Those of the parameters that are needed."""
    found = flatten_dict(params)
    return unflatten_dict({name: found[name] for name in flatten_dict(needed)})


def image_shape(run: Run) -> tuple[int, int, int]:
    """Of the images that are encoded."""
    return (run.config.data.source_size, run.config.data.source_size, run.config.data.channels)


ENCODERS = {DDAE: tap, RepFusion: student, Reading: reading}  # the first that fits
