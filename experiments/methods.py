"""The method that a config names, as an object, and what of it cannot be had. Wrong values are told by key."""

from typing import Any, get_args

from flax import linen as nn
from ml_collections import ConfigDict

from data.dense import Task
from experiments import networks
from soda_jax.diffusion.samplers import path
from soda_jax.diffusion.schedules import Name as ScheduleName
from soda_jax.diffusion.schedules import Schedule
from soda_jax.methods.autoencoder import Autoencoder
from soda_jax.methods.base import BatchSpec, LatentMethod, Method
from soda_jax.methods.consistency import Consistency
from soda_jax.methods.ddae import DDAE
from soda_jax.methods.dense import Dense, Landmarks, Segmentation
from soda_jax.methods.distances import Kind as DistanceKind
from soda_jax.methods.edm_augment import LABELS, Augment
from soda_jax.methods.joint_prior import JointPrior
from soda_jax.methods.latent_prior import LatentPrior
from soda_jax.methods.noise_levels import Kind as LevelKind
from soda_jax.methods.noise_levels import NoiseLevels
from soda_jax.methods.noisy_classifier import NoisyClassifier
from soda_jax.methods.reading import Reading
from soda_jax.methods.regressor import Regressor
from soda_jax.methods.repfusion import Input as TeacherInput
from soda_jax.methods.repfusion import RepFusion
from soda_jax.methods.siamese import BYOL, Siamese, SimCLR, VICReg
from soda_jax.methods.soda import SODA, keep_all_but
from soda_jax.methods.supervised import Supervised
from soda_jax.methods.time_choice import Policy, TimeChoice, Uniform
from soda_jax.nn.checks import check_choice
from soda_jax.nn.dense_heads import HeatMapHead, SegmentationHead
from soda_jax.nn.heat_maps import Decoding
from soda_jax.nn.latent_mlp import LatentMLP
from soda_jax.nn.noisy_wide_resnet import NoisyWideResNet

LEVELS = get_args(LevelKind)


def method(config: ConfigDict, spec: BatchSpec) -> Method:
    """The method that `config.method` names, for batches of this spec."""
    check_choice("method", config.method, ["soda", "regressor", "autoencoder", *METHODS])
    return METHODS.get(config.method, soda)(config, spec)


def soda(config: ConfigDict, spec: BatchSpec) -> SODA:
    """SODA for batches of this spec, or what is compared with it and has the same networks."""
    c, channels, seen = config.model, spec["target"].shape[-1], networks.rays(config)
    own = {**{name: config.diffusion[name] for name in ("prediction", "loss_in")}, **adaptive(config)}
    reads, paints = networks.encoder(config), networks.denoiser(config, channels)
    kind = {"regressor": Regressor, "autoencoder": Autoencoder}.get(config.method, SODA)
    return kind(
        encoder=networks.projecting(config, reads, channels) if c.source_rays else reads,
        denoiser=networks.projecting(config, paints, channels) if seen else paints,
        schedule=networks.schedule(config),
        mask_section=c.mask_section,
        mask_all=c.mask_all,
        source_noise=c.source_noise,
        rays=seen,
        source_rays=c.source_rays,
        lens=networks.lens(config),
        cross_attention=c.cross_attention,
        **(own if kind is SODA else {}),
        consistency=consistency(config),
    )


def ddae(config: ConfigDict, spec: BatchSpec) -> DDAE:
    """A diffusion net without latent. ValueError where it would be probed at another size than it is trained at."""
    if config.data.source_size != config.data.image_size:
        raise ValueError(
            f"data.source_size={config.data.source_size} is the size of images that are probed, and "
            f"data.image_size={config.data.image_size} that of training: with method='ddae' they must be alike"
        )
    c = config.ddae
    augment = Augment(probability=float(c.augment)) if c.augment else None
    more = {"remat": config.model.remat, "label_dim": LABELS if augment else 0}
    more |= {"self_condition": c.self_condition, "self_gradient": c.self_gradient}
    net = networks.diffusion_net(config.model, config.diffusion, spec["target"].shape[-1], c.classes, **more)
    own = {name: c[name] for name in ("tap", "level", "draws", "class_dropout")}
    return DDAE(denoiser=net, framework=networks.framework(config.diffusion), augment=augment, **own)


def repfusion(config: ConfigDict, spec: BatchSpec) -> RepFusion:
    """A student and its teacher."""
    c, t = config.repfusion, config.teacher
    check_choice("repfusion.distance", c.distance, get_args(DistanceKind))
    check_choice("repfusion.input", c.input, get_args(TeacherInput))
    more = {"dropout": 0.0, "label_dim": t.label_dim, "self_condition": t.self_condition}
    net = networks.diffusion_net(t, t, config.data.channels, t.classes, **more)
    teacher = DDAE(
        denoiser=net, framework=networks.framework(t), tap=t.tap, tap_key="teacher.tap", level=1, draws=0
    )
    return RepFusion(
        encoder=networks.encoder(config),
        teacher=teacher,
        teacher_shape=(t.image_size, t.image_size, config.data.channels),
        choice=time_choice(config, teacher.levels),
        distance=c.distance,
        weight=float(c.weight),
        input=c.input,
    )


def time_choice(config: ConfigDict, actions: int) -> TimeChoice:
    """Which time the teacher is asked for."""
    c = config.repfusion
    check_choice("repfusion.time", c.time, ["rl", "uniform", "fixed"])
    if c.time == "rl":
        horizon, own = (
            -(-c.entropy_images // config.train.batch),
            {"entropy": float(c.entropy), "baseline": c.baseline},
        )
        return Policy(actions=actions, classes=tuple(config.supervised.classes), horizon=horizon, **own)
    choice = Uniform(first=c.t, count=1) if c.time == "fixed" else Uniform(count=c.t_max)
    if choice.first + choice.count > actions:
        raise ValueError(
            f"repfusion.t and repfusion.t_max must be within the teacher's {actions} times, found {c.t}, {c.t_max}"
        )
    return choice


def consistency(config: ConfigDict) -> Consistency | None:
    """The loss between the latents of both views."""
    c = config.model
    return Consistency(weight=float(c.consistency), widths=c.projector) if c.consistency else None


def adaptive(config: ConfigDict) -> dict[str, Any]:
    """What a diffusion has beside a regressor: how it draws times, how many, and a prior that is trained along."""
    c, weight = config.diffusion, config.model.joint_prior
    check_choice("diffusion.noise_levels", c.noise_levels, ["uniform", *LEVELS])
    levels = NoiseLevels(kind=c.noise_levels, bins=c.level_bins) if c.noise_levels in LEVELS else None
    joint = JointPrior(weight=float(weight), **latent_denoiser(config)) if weight else None
    return {"noise_levels": levels, "joint_prior": joint, "draws": c.draws}


def latent_prior(config: ConfigDict, spec: BatchSpec) -> LatentPrior:
    """A diffusion model of the latents of an encoder."""
    del spec  # its shapes follow from the encoder
    return LatentPrior(encoder=networks.encoder(config), **latent_denoiser(config))


def siamese(config: ConfigDict, spec: BatchSpec) -> Siamese:
    """SimCLR, BYOL or VICReg, on SODA's encoder."""
    del spec  # their shapes follow from the encoder
    c, fields = (
        config.siamese,
        {"encoder": networks.encoder(config), "projector": tuple(config.siamese.projector)},
    )
    if config.method == "simclr":
        return SimCLR(temperature=c.temperature, **fields)
    if config.method == "vicreg":
        return VICReg(**fields)
    steps = -(-config.train.images // config.train.batch)
    return BYOL(predictor=tuple(c.predictor), momentum=c.momentum, total_steps=steps, **fields)


def supervised(config: ConfigDict, spec: BatchSpec) -> Supervised:
    """SODA's encoder, trained on labels."""
    del spec  # its shapes follow from the encoder
    return Supervised(encoder=networks.encoder(config), classes=tuple(config.supervised.classes))


def finetune(config: ConfigDict, spec: BatchSpec) -> Supervised:
    """The encoder of another run's method, or its net up to a tap, and heads. ValueError where there is none."""
    c = config.finetune
    check_choice("finetune.feature", c.feature, ["pooled", "z"])
    encoder, classes = encoder_of_origin(config, spec), tuple(config.supervised.classes)
    feature = "z" if c.method == "ddae" else c.feature
    return Supervised(encoder=encoder, feature=feature, classes=classes)


def encoder_of_origin(config: ConfigDict, spec: BatchSpec) -> nn.Module:
    """That of the run which training begins with. ValueError where it has none of its own that sees images alone."""
    c = config.finetune
    check_choice("finetune.start", c.start, ["trained", "scratch"])
    check_choice("finetune.method", c.method, ["soda", "regressor", "autoencoder", *METHODS])
    if c.method in TUNED:
        raise ValueError(f"finetune.method={c.method!r}: begin with the run that this one began with itself")
    origin_config = config.copy_and_resolve_references().unlock()
    origin_config.method = c.method
    origin = METHODS.get(c.method, soda)(origin_config, {**spec, "target": spec["source"]})
    if isinstance(origin, DDAE):
        return origin.tapped()
    if not isinstance(origin, Reading) or origin.source_rays:
        raise ValueError(
            f"finetune.method={c.method!r}: its encoder is that of another run, or sees rays beside its images; "
            "fine-tune a run whose encoder sees images alone"
        )
    return origin.encoder


def dense(config: ConfigDict, spec: BatchSpec) -> Dense:
    """The encoder of another run's method, or its net up to a tap, with a head that answers for pixels or points."""
    c = config.dense
    check_choice("dense.task", c.task, get_args(Task))
    check_choice("dense.decoding", c.decoding, get_args(Decoding))
    size = config.data.source_size
    if c.stride < 1 or c.stride & (c.stride - 1) or size % c.stride:
        raise ValueError(f"dense.stride={c.stride} must be a power of 2 that divides data.source_size={size}")
    own = {"width": c.width, "stride": c.stride, "dtype": networks.compute_dtype(config)}
    shared = {"encoder": encoder_of_origin(config, spec), "frozen": c.frozen}
    if c.task == "segmentation":
        head = SegmentationHead(classes=c.classes, **own)
        return Segmentation(head=head, auxiliary=float(c.auxiliary), **shared)
    return Landmarks(
        head=HeatMapHead(points=c.points, **own), sigma=float(c.sigma), decoding=c.decoding, **shared
    )


def noisy_classifier(config: ConfigDict, spec: BatchSpec) -> NoisyClassifier:
    """A head on another run's diffusion net, or a classifier of its own, for images under noise."""
    c, classes = config.noisy_classifier, tuple(config.supervised.classes)
    check_choice("noisy_classifier.backbone", c.backbone, ["ddae", "wrn"])
    wrn = NoisyWideResNet(sum(classes), depth=c.depth, width=c.width, dtype=networks.compute_dtype(config))
    read = ddae(config, {**spec, "target": spec["source"]})
    net = wrn if c.backbone == "wrn" else None
    return NoisyClassifier(ddae=read, classes=classes, net=net, shift=c.shift)


def latent_denoiser(config: ConfigDict) -> dict[str, Any]:
    """The fields of one: what denoises z, the noise there, and what is predicted."""
    c = config.prior
    check_choice("prior.schedule", c.schedule, list(get_args(ScheduleName)))
    if c.steps < 0:
        raise ValueError(f"prior.steps must be 0 (continuous) or more, found {c.steps}")
    network = LatentMLP(layers=c.layers, width=c.width, dtype=networks.compute_dtype(config))
    schedule = Schedule(name=c.schedule, steps=c.steps)
    return {"network": network, "schedule": schedule, "loss_kind": c.loss, "prediction": c.prediction}


def check_hooks(config: ConfigDict, method: Method) -> None:
    """Raise ValueError, naming the key, for pictures and readings that would fail hours later, when they are due."""
    for name in ("samples", "monitor"):
        if config[name].every_images < 0:
            raise ValueError(
                f"{name}.every_images must be 0 (never) or more, found {config[name].every_images}"
            )
    if isinstance(method, LatentPrior):
        check_never(config, "samples", "draw with python -m experiments.sample --mode=unconditional")
    if not isinstance(method, Reading):
        check_never(config, "monitor", "there is no encoder of sources")
    if hasattr(method, "generate"):
        path(method.schedule, networks.sampler(config))
    else:
        check_never(config, "samples", "this method draws nothing")
    if config.samples.count < 1:
        raise ValueError(f"samples.count must be 1 or more, found {config.samples.count}")
    if config.monitor.batch < 2:
        raise ValueError(
            f"monitor.batch must be 2 or more, to exchange latents, found {config.monitor.batch}"
        )
    if isinstance(method, LatentMethod):
        keep_all_but(method.sections, networks.guidance(config).sections)


def check_never(config: ConfigDict, hook: str, reason: str) -> None:
    """ValueError where a hook is asked for that this method has not."""
    if config[hook].every_images:
        raise ValueError(
            f"{hook}.every_images must be 0 with method={config.method!r}, found {config[hook].every_images}: {reason}"
        )


# config.method -> what makes it of (config, spec); those that are not here are made by `soda`
METHODS = {"ddae": ddae, "repfusion": repfusion, "latent_prior": latent_prior, "supervised": supervised}
METHODS |= dict.fromkeys(("simclr", "byol", "vicreg"), siamese)
METHODS |= {"finetune": finetune, "dense": dense, "noisy_classifier": noisy_classifier}
TUNED = ("finetune", "dense")  # those that begin with another run's encoder
