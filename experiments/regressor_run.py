"""The regressor that novel views are compared with: a run of its own, found, or trained first."""

from pathlib import Path

from absl import flags
from ml_collections import ConfigDict

from experiments import build, runs, train
from experiments.job import prepare
from experiments.probing import print_once
from experiments.runs import Run, open_run
from soda_jax.parallel.preflight import check_alike
from soda_jax.training import checkpoints
from soda_jax.training.signals import StopRequest, Terminated

# Keys of data and model that a regressor may have of its own: they change neither its data nor its size.
OWN = ("data.dir", "data.workers", "data.threads", "data.prefetch", "model.mask_", "model.source_noise")
OWN += ("model.dropout", "model.dtype", "model.remat")


def regressor_of(run: Run, where: str | None) -> Run | None:
    """The run that --regressor names; None: WORKDIR/regressor, trained first where it is not; "none": no run.

    Raises ValueError where it is no regressor, or one of other data or sizes, and names the keys.
    """
    if where == "none":
        return None
    folder = Path(where) if where else trained(run)
    try:
        found = open_run(folder)
    except (ValueError, OSError) as error:
        raise ValueError(f"--regressor={folder}: {error}") from error
    check_comparable(run, found)
    return found


def check_comparable(run: Run, found: Run) -> None:
    """Raises ValueError unless `found` is a finished regressor of the run's data and sizes."""
    name, method = f"--regressor={found.workdir}", found.config.method
    if method != "regressor":
        raise ValueError(f"{name} is a run of config.method={method!r}, expected one of 'regressor'")
    if found.step is None:
        raise ValueError(
            f"{name} has no checkpoint yet: train it first, or leave it out with --regressor=none"
        )
    lines = runs.differences(runs.plain(run.config), runs.plain(found.config))
    lines = [line for line in lines if line.startswith(("data.", "model.")) and not line.startswith(OWN)]
    if run.data_info["manifest"] != found.data_info["manifest"]:
        lines.append(f"files of data set {run.config.data.name}")
    if lines:
        raise ValueError(
            f"{name} was trained on other data or sizes than {run.workdir} ({'; '.join(lines)}): train one with the "
            "config of that run and --config.method=regressor"
        )


def config_of(run: Run) -> ConfigDict:
    """The run's own, but for the method: as many images as the run has seen, whatever time it takes; no pictures."""
    config = run.config.copy_and_resolve_references()
    config.method = "regressor"
    config.train.update(images=seen(run), minutes=0.0)
    config.samples.every_images = config.monitor.every_images = 0
    return config


def seen(run: Run) -> int:
    """How many images have trained its checkpoint."""
    return run.step * run.config.train.batch


def trained(run: Run) -> Path:
    """WORKDIR/regressor, when it has seen as many images as the run: trained, or trained on, where it has not.

    Raises KeyboardInterrupt where it is stopped (what it has learned is saved), ValueError where it diverges.
    """
    folder, config = run.workdir / "regressor", config_of(run)
    done = max(checkpoints.steps(folder / "checkpoints"), default=0)
    check_alike({"step of the regressor": str(done)})
    if done < build.lengths(config).steps:
        print_once(
            f"training the regressor first, in {folder}: {config.train.images:,} images, as many as the run has seen, "
            "in about the time that they took there; the same command goes on when stopped, and --regressor=none "
            "leaves it out"
        )
        train.use_compilation_cache(config)
        train_in(folder, config)
    return folder


def train_in(folder: Path, config: ConfigDict) -> None:
    """What `experiments.train` does, in this process."""
    flags.FLAGS.mark_as_parsed()  # grain's workers ask absl, and this main reads its arguments by itself
    with StopRequest(train.stop_signals()) as stop:
        end = train.run(prepare(config, folder), stop, train.say)
    if end.kind == "stopped":
        raise Terminated if stop.requested == "SIGTERM" else KeyboardInterrupt
    if end.kind == "diverged":
        raise ValueError(f"the regressor in {folder} diverged, see above: --regressor=none leaves it out")
