"""What a config says of data, devices and lengths, as objects (networks.py: the rest). Wrong values are told by key."""

import re
from collections.abc import Sequence
from typing import get_args

import jax
import jax.numpy as jnp
import optax
from jax.sharding import AbstractMesh, Mesh
from ml_collections import ConfigDict

from data.dense import with_truth
from data.dense_views import DenseViews
from data.latents import dtype_of
from data.sources import DataSet, open_data_set
from data.subset import labelled_subset
from data.views import Views
from data.zoom import zoomed
from experiments import methods, networks
from soda_jax.methods.base import BatchSpec
from soda_jax.nn.checks import check_choice
from soda_jax.nn.rays import CAMERAS
from soda_jax.parallel import processes
from soda_jax.parallel.mesh import Plan, check_batch, make_mesh, plan_mesh
from soda_jax.parallel.sharding import RULES, Rule, Rules, state_shardings
from soda_jax.training.loop import Lengths
from soda_jax.training.optimizer import Ema, OptimizerConfig, layer_decay, make_optimizer
from soda_jax.types import Tree

LABELLED = ("supervised", "repfusion", "finetune", "noisy_classifier")  # methods that look at all labels
INIT = 2**32 - 1  # stream of the initial parameters: no step has this number


def optimizer(config: ConfigDict) -> optax.GradientTransformation:
    """As the config wants it; what is frozen does not even decay."""
    if config.method not in methods.TUNED:
        return make_optimizer(optimizer_config(config))
    spec = batch_spec(config)
    layers = methods.method(config, spec).layers(spec)
    rates = layer_decay(config.finetune.layer_decay, layers)
    frozen = config.method == "dense" and config.dense.frozen
    return make_optimizer(optimizer_config(config), {**rates, **({"encoder": 0.0} if frozen else {})})


def optimizer_config(config: ConfigDict) -> OptimizerConfig:
    """What `make_optimizer` and `learning_rate` take."""
    return OptimizerConfig(
        **config.optimizer.to_dict(), total_images=config.train.images, batch=config.train.batch
    )


def ema(config: ConfigDict) -> Ema:
    """The average of the parameters."""
    return Ema(**config.ema.to_dict())


def lengths(config: ConfigDict) -> Lengths:
    """Of training, in images."""
    return Lengths(
        batch=config.train.batch,
        images=config.train.images,
        log_every=config.train.log_every_images,
        save_every=config.checkpoint.every_images,
        minutes=config.train.minutes,
    )


def mesh_plan(config: ConfigDict, present: int | None = None) -> Plan:
    """Sizes of the mesh on the devices that are present, and by how much it is folded."""
    present = jax.device_count() if present is None else present
    plan = plan_mesh(config.mesh.data, config.mesh.fsdp, present, config.mesh.fold)
    if processes.process_count() > 1 and plan.devices < present:
        raise ValueError(
            f"mesh.data={plan.data} x mesh.fsdp={plan.fsdp} is {plan.devices} devices, but the {present} of all "
            f"{processes.process_count()} processes must take part: set mesh.data=-1, or start fewer processes"
        )
    check_batch(config.train.batch, config.train.accumulation * plan.folded, plan.devices)
    return plan


def mesh(config: ConfigDict, devices: Sequence[Tree] | None = None) -> Mesh:
    """The mesh of these devices (None: of all that this run has), folded where there are too few."""
    plan = mesh_plan(config, None if devices is None else len(devices))
    return make_mesh(plan.data, plan.fsdp, devices)


def rules(config: ConfigDict) -> Rules:
    """How arrays are cut: the lines of the config, then the table of `sharding.py`. ValueError for no rule."""
    for line in config.mesh.rules:
        if not isinstance(line, tuple) or len(line) != 2:
            raise ValueError(f"mesh.rules must hold pairs (expression, rule), found {line!r}")
        check_choice("mesh.rules", line[1], list(get_args(Rule)))
        try:
            re.compile(line[0])
        except re.error as error:
            raise ValueError(f"mesh.rules: {line[0]!r} is no regular expression ({error})") from error
    return (*config.mesh.rules, *RULES)


def shardings(config: ConfigDict, abstract: Tree, mesh: Mesh | AbstractMesh) -> Tree:
    """Where each array of this state lies on the mesh. ValueError for rules that are none."""
    if config.mesh.smallest < 0:
        raise ValueError(f"mesh.smallest must be 0 or more bytes, found {config.mesh.smallest}")
    return state_shardings(abstract, mesh, rules(config), config.mesh.smallest)


def batch_spec(config: ConfigDict) -> BatchSpec:
    """Shapes of a global batch, as it travels to the devices."""
    c, batch = config.data, config.train.batch

    def images(side: int, *views: int) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((batch, *views, side, side, c.channels), dtype_of(c.channels))

    index = jax.ShapeDtypeStruct((batch,), jnp.int32)
    if config.method == "latent_prior":  # it looks at sources only
        return {"source": images(c.source_size), "index": index}
    sources = (c.sources,) if c.sources > 1 else ()
    classes = classes_of(config)
    labels = {"labels": jax.ShapeDtypeStruct((batch, len(classes)), jnp.int32)} if classes else {}
    if config.method == "ddae":  # and it at targets
        return {"target": images(c.image_size), "index": index, **labels}
    if config.method in LABELLED:  # and they at no targets
        return {"source": images(c.source_size), "index": index, **labels}
    if config.method == "dense":
        return {"source": images(c.source_size), "index": index, **truth_spec(config)}
    pictures = {"source": images(c.source_size, *sources), "target": images(c.image_size)}
    return {**pictures, "index": index, **(camera_spec(batch, *sources) if networks.rays(config) else {})}


def classes_of(config: ConfigDict) -> tuple[int, ...]:
    """Of each label that the method looks at, how many; (): it looks at none."""
    if config.method == "ddae":
        return (config.ddae.classes,) if config.ddae.classes else ()
    return tuple(config.supervised.classes) if config.method in LABELLED else ()


def truth_spec(config: ConfigDict) -> BatchSpec:
    """Of what a dense task is trained on."""
    batch, side, c = config.train.batch, config.data.source_size, config.dense
    if c.task == "segmentation":
        return {"mask": jax.ShapeDtypeStruct((batch, side, side), jnp.uint8)}
    points = jax.ShapeDtypeStruct((batch, c.points, 2), jnp.float32)
    return {"points": points, "seen": jax.ShapeDtypeStruct((batch, c.points), jnp.int32)}


def camera_spec(batch: int, *sources: int) -> BatchSpec:
    """Of what the rays are made of."""
    shapes = dict(zip(CAMERAS, ((*sources, 4, 4), (4, 4), (3, 3)), strict=True))
    return {name: jax.ShapeDtypeStruct((batch, *shape), jnp.float32) for name, shape in shapes.items()}


def views(config: ConfigDict) -> Views:
    """How source and target are made of an example."""
    c, cameras = config.data, networks.rays(config) is not None
    shared = {name: c[name] for name in Views.__dataclass_fields__ if name not in ("cameras", "labels")}
    if config.method != "dense":
        return Views(**shared, cameras=cameras, labels=bool(classes_of(config)))
    own = {name: config.dense[name] for name in ("task", "rotation", "zoom", "mirror", "colour")}
    return DenseViews(**shared, **own, pairs=config.dense.pairs, upright=config.dense.upright)


def dataset(config: ConfigDict) -> DataSet:
    """The prepared data set; of fine-tuning, as much of it as is to be labelled; of dense tasks, with their truth."""
    found, part = whole_dataset(config), config.finetune
    if config.method not in methods.TUNED:
        return found
    found = with_truth(found, config.dense.task) if config.method == "dense" else found
    return labelled_subset(found, fraction=part.fraction, shots=part.shots, seed=config.seed)


def whole_dataset(config: ConfigDict) -> DataSet:
    """The prepared data set."""
    c = config.data
    found = open_data_set(c.name, c.dir, train_split=c.train_split, test_split=c.test_split)
    return zoomed(found, c.zoom)


def init_key(config: ConfigDict) -> jax.Array:
    """The key of the initial parameters. ValueError for a seed that is out of range."""
    if not 0 <= config.seed < 2**32:
        raise ValueError(f"config.seed must be 0 to 2^32 - 1, found {config.seed}")
    return jax.random.fold_in(jax.random.key(config.seed), jnp.uint32(INIT))
