"""A training job before anything is computed: objects made of a config, checked, and described in words."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import jax
from jax.sharding import Mesh
from ml_collections import ConfigDict

from data.dense import info_of
from data.dense_info import DenseInfo
from data.pipeline import Batches, check_fit, training_batches
from data.sources import DataSet
from data.views import cameras_of
from experiments import build, methods, networks, runs
from experiments.configs import default
from soda_jax.methods.base import BatchSpec, Method
from soda_jax.parallel import processes
from soda_jax.parallel.mesh import Plan
from soda_jax.parallel.sharding import abstract_batch, with_shardings
from soda_jax.training import tables
from soda_jax.training.checkpoints import versions
from soda_jax.training.flops import forward_flops, training_flops
from soda_jax.training.loop import Lengths
from soda_jax.training.state import TrainState, create
from soda_jax.training.step import jit_step
from soda_jax.types import Tree


@dataclass(frozen=True, kw_only=True)
class Program:
    """What there is to compile: no data set, no folder, and devices that need not be there."""

    config: ConfigDict
    method: Method
    spec: BatchSpec  # of a global batch
    mesh: Mesh
    plan: Plan
    abstract: Tree  # TrainState of ShapeDtypeStructs with shardings
    shardings: Tree  # TrainState of NamedShardings

    @property
    def accumulation(self) -> int:
        """Microbatches a step, those that a folded mesh asks for included."""
        return self.config.train.accumulation * self.plan.folded

    @cached_property
    def flops_per_image(self) -> int:
        """Of a training step, by the operations of the networks."""
        one = {name: jax.ShapeDtypeStruct((1, *x.shape[1:]), x.dtype) for name, x in self.spec.items()}
        variables = {"params": self.abstract.params, "batch_stats": self.abstract.batch_stats}
        keys = jax.eval_shape(lambda: jax.random.split(jax.random.key(0), 1))
        return training_flops(forward_flops(self.method.loss, variables, one, keys))

    def lower(self) -> jax.stages.Lowered:
        """The training step, to be compiled for the devices of the mesh."""
        c = self.config
        step = jit_step(
            self.method, build.optimizer(c), build.ema(c), self.accumulation, c.seed, self.shardings
        )
        return step.lower(self.abstract, abstract_batch(self.spec, self.mesh))


@dataclass(frozen=True, kw_only=True)
class Job(Program):
    """Everything that training needs, but for the arrays."""

    workdir: Path
    dataset: DataSet
    lengths: Lengths

    @property
    def metadata(self) -> dict[str, Any]:
        """What a checkpoint says of its origin."""
        data = self.dataset.manifest
        return {"config": runs.plain(self.config), "versions": versions(), "data": data}


def design(config: ConfigDict, devices: Sequence[Tree] | None = None) -> Program:
    """The program of a config for these devices; None: all of this run. ValueError for a key that is wrong."""
    plan, spec = build.mesh_plan(config, None if devices is None else len(devices)), build.batch_spec(config)
    mesh, method = build.mesh(config, devices), methods.method(config, spec)
    methods.check_hooks(config, method)
    abstract = jax.eval_shape(initialiser(config, method, spec))
    shardings = build.shardings(config, abstract, mesh)
    return Program(
        config=config,
        method=method,
        spec=spec,
        mesh=mesh,
        plan=plan,
        abstract=with_shardings(abstract, shardings),
        shardings=shardings,
    )


def prepare(config: ConfigDict, workdir: Path) -> Job:
    """Everything that can be wrong with a config or a folder is found here, as ValueError or OSError."""
    make_workdir(workdir)
    dataset = build.dataset(config)
    check_fit(dataset, build.views(config))
    check_lens(config, dataset)
    check_classes(config, dataset)
    check_dense(config, dataset)
    if config.method == "ddae":
        networks.class_guidance(config, config.ddae.classes)
    program = design(config)
    parts = {field.name: getattr(program, field.name) for field in fields(program)}
    return Job(workdir=workdir, dataset=dataset, lengths=build.lengths(config), **parts)


def check_lens(config: ConfigDict, dataset: DataSet) -> None:
    """ValueError where the encoder sees rays and images without a camera would have none, with what to set."""
    if not config.model.source_rays or config.model.source_lens:
        return
    k = cameras_of(dataset.split("train")[0], 0, 0, dataset.image_shape)["intrinsics"]
    lens = tuple(round(float(k[place]), 6) for place in ((0, 0), (1, 1), (0, 2), (1, 2)))
    raise ValueError(
        "model.source_rays=True asks for model.source_lens, for images that are encoded without a camera: data set "
        f"{dataset.name!r} has {lens}"
    )


def check_classes(config: ConfigDict, dataset: DataSet) -> None:
    """ValueError where training on labels is to have other labels than there are, with what to set."""
    known = tuple(dataset.labels.values())
    if config.method in build.LABELLED and tuple(config.supervised.classes) != known:
        raise ValueError(
            f"supervised.classes={tuple(config.supervised.classes)}: data set {dataset.name!r} has "
            f"{dataset.labels or 'no labels'}, so set {known}"
        )
    told = config.ddae.classes if config.method == "ddae" else 0
    if told and known != (told,):
        right = f"{known[0]}" if len(known) == 1 else "0: a net can be told of a single label"
        raise ValueError(
            f"ddae.classes={told}: data set {dataset.name!r} has {dataset.labels or 'no labels'}, so set {right}"
        )


def check_dense(config: ConfigDict, dataset: DataSet) -> None:
    """ValueError where masks or keypoints are other ones than those that a dense task is to find, with what to set."""
    if config.method != "dense":
        return
    info = info_of(dataset)
    if info.sided and config.dense.task == "segmentation" and config.dense.mirror:
        raise ValueError(
            f"dense.mirror={config.dense.mirror}: data set {dataset.name!r} has left and right classes, which a mirror "
            "image would mix up: set --config.dense.mirror=0.0"
        )
    flags = flags_of(info)
    changed = [f"--config.dense.{key}={value}" for key, value in flags.items() if config.dense[key] != value]
    if changed:
        raise ValueError(f"data set {dataset.name!r} has other masks or keypoints: set {' '.join(changed)}")


def flags_of(info: DenseInfo) -> dict[str, Any]:
    """The keys of config.dense that say what a data set has."""
    pairs = tuple(map(tuple, info.pairs))
    return {"classes": len(info.classes), "points": len(info.points), "pairs": pairs, "upright": info.upright}


def make_workdir(workdir: Path) -> None:
    """OSError, with the flag to change, unless files can be written there."""
    try:
        workdir.mkdir(parents=True, exist_ok=True)
        trial = workdir / f".writable_{processes.process_index()}"
        trial.touch()
        trial.unlink(missing_ok=True)
    except OSError as error:
        reason = error.strerror
        raise OSError(f"--workdir={workdir}: cannot write there ({reason}); choose another folder") from error


def initialiser(config: ConfigDict, method: Method, spec: BatchSpec) -> Callable[[], TrainState]:
    """() -> the state before the first step."""
    optimizer = build.optimizer(config)
    return lambda: create(method, optimizer, build.init_key(config), spec)


def batches(job: Job, first: int) -> Batches:
    """This process's rows of the batches from step `first` on."""
    c = job.config.data
    return training_batches(
        job.dataset,
        build.views(job.config),
        batch=job.lengths.batch,
        seed=job.config.seed,
        process_index=processes.process_index(),
        process_count=processes.process_count(),
        workers=c.workers,
        threads=c.threads,
        prefetch=c.prefetch,
        start_step=first,
    )


def check_same(job: Job, step: int, saved: Mapping[str, Any]) -> None:
    """Raise ValueError, with the differences, if a checkpoint was made with another config or other data."""
    changed = runs.forbidden_differences(runs.completed(saved["config"]), runs.plain(job.config))
    if saved["data"] != job.dataset.manifest:
        changed.append(f"files of data set {job.dataset.name}: {saved['data']} -> {job.dataset.manifest}")
    if changed and not job.config.train.allow_config_change:
        raise ValueError(
            f"the checkpoint of step {step} in {job.workdir} was made with another config: "
            f"{'; '.join(changed)}. Undo that, take another --workdir, or go on regardless with "
            "--config.train.allow_config_change=True"
        )


def describe(job: Job, first: int) -> str:
    """What is about to happen, for the log."""
    parts = [changes(job), tables.parameter_table(job.abstract.params)]
    table = tables.sharding_table(job.abstract, job.shardings, build.rules(job.config))
    parts += [table, surroundings(job, first)]
    return "\n\n".join(parts)


def changes(job: Job) -> str:
    """The config, as far as it is not the default."""
    lines = runs.differences(runs.plain(default.get_config()), runs.plain(job.config))
    return "\n".join(["config, where it differs from default.py:", *(f"  {line}" for line in lines or ["-"])])


def surroundings(job: Job, first: int) -> str:
    """Devices, work and data."""
    devices = job.mesh.devices
    device, shape = devices.flat[0], ", ".join(f"{axis} {size}" for axis, size in job.mesh.shape.items())
    lines = [
        f"devices: {devices.size} x {device.device_kind} ({device.platform}), mesh: {shape}, "
        f"processes: {processes.process_count()}",
        f"work: {job.flops_per_image / 1e9:.3g} GFLOP an image",
        f"data: {job.dataset.name}, {len(job.dataset.split('train')):,} training examples",
        f"steps: {job.lengths.steps:,} of {job.lengths.batch} images"
        + (f", going on from step {first:,}" if first else ""),
    ]
    return "\n".join([*lines, *([folded(job)] if job.plan.folded > 1 else [])])


def folded(job: Job) -> str:
    """What was asked for, and what it became."""
    asked = job.plan.devices * job.plan.folded
    return (
        f"folded: mesh.data={job.config.mesh.data} x mesh.fsdp={job.config.mesh.fsdp} is {asked} devices, "
        f"{jax.device_count()} present: {job.accumulation} microbatches a step keep the batch at "
        f"{job.lengths.batch} (BatchNorm sees one microbatch at a time)"
    )
