"""Trains a method: `python -m experiments.train --config=experiments/configs/x.py --workdir=DIR`.

Any key of the config can be set: `--config.train.images=100000`. The same command goes on where the run
stopped; SIGTERM and Ctrl-C save first. --init=PATH begins a DDAE with weights that others trained, whose config is
experiments/configs/ddae_diffusers.py:PATH, ddae_dit_latents.py:PATH or ddae_adm.py:PATH. What it leaves in the workdir:

    config.json                config, versions, command line, what there is to know of the data set
    metrics.jsonl              one JSON object a line: step, images, loss, images_per_second, monitor/..., ...
    time_is_up.json            {"step", "images", "minutes"}, where config.train.minutes has ended it
    tensorboard/               the same numbers
    checkpoints/<step>/        the last few states
    samples/step_<step>.png    source, target, generated
    failure/step_<step>/       the batch that gave a loss that was not finite, and the state that it met
    prior.json, teacher.json, finetune.json, noisy_classifier.json   which run and step it began with, of those that do
    errors.log                 what went wrong in one of several processes, with its number

On several hosts every one of them runs this command: see experiments/launch/ and experiments/cluster.py.
"""

import math
import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging
from ml_collections import ConfigDict, config_flags

from experiments import cluster, runs, xla_flags
from experiments.hooks import hooks
from experiments.job import Job, batches, check_same, describe, initialiser, prepare
from experiments.origins import taken_for, with_taken
from experiments.probing import write_json
from soda_jax.parallel import processes
from soda_jax.parallel.joining import JoinError
from soda_jax.parallel.preflight import check_alike
from soda_jax.parallel.sharding import put_batch
from soda_jax.parallel.watchdog import Watchdog
from soda_jax.training import tables
from soda_jax.training.checkpoints import CheckpointError, Checkpoints, newest_good, versions
from soda_jax.training.failure import save_failure
from soda_jax.training.flops import peak_flops, utilisation
from soda_jax.training.ledger import Ledger
from soda_jax.training.loop import End, Parts, train
from soda_jax.training.metrics import MetricWriter, append_record
from soda_jax.training.progress import Progress
from soda_jax.training.signals import SIGNALS, TIME_IS_UP, StopRequest
from soda_jax.training.state import TrainState

_CONFIG = config_flags.DEFINE_config_file("config", lock_config=True, help_string="A file of configs/.")
_INIT = flags.DEFINE_string("init", None, "Of method=ddae: weights to begin with.")
_WORKDIR = flags.DEFINE_string("workdir", None, "Folder of the run: checkpoints, metrics, pictures.")
cluster.define_flags()

Say = Callable[[str], None]


def main(argv: list[str]) -> None:
    """Exit status 0: finished, or stopped and saved. 1: something was wrong, and one line says what."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    xla_flags.set_up()
    quiet_libraries()
    workdir = Path(_WORKDIR.value)
    try:
        cluster.join_others(flags.FLAGS)
        with StopRequest(stop_signals()) as stop, cluster.ending_together(workdir):
            use_compilation_cache(_CONFIG.value)
            end = run(prepare(with_init(_CONFIG.value, _INIT.value), workdir), stop, say)
    except (ValueError, OSError, CheckpointError, JoinError) as error:
        logging.info("where it happened", exc_info=True)  # shown with --verbosity=1
        raise SystemExit(f"error: {error}") from error
    if end.kind == "diverged":
        raise SystemExit(1)


def with_init(config: ConfigDict, init: str | None) -> ConfigDict:
    """The config with --init. ValueError for a method that knows no such beginning."""
    if init:
        if config.method != "ddae":
            raise ValueError(f"--init is for config.method='ddae', found {config.method!r}")
        config.ddae.init = init
    return config


def run(job: Job, stop: StopRequest, say: Say) -> End:
    """Compiles, starts or goes on, trains, says how it ended."""
    failures: list[str] = []
    with cluster.watchdog(job) as watch:
        check_alike(cluster.facts(job))
        if processes.is_main():
            newest_good(job.workdir / "checkpoints", say, set_aside=True)
        processes.any_process(
            False
        )  # nobody looks for checkpoints before the damaged ones are out of the way
        # The inner `ending_together`: a process that fails must not wait for its checkpoints, nor for the others.
        with checkpoints_of(job, failures, say) as checkpoints, cluster.ending_together(job.workdir):
            first, ledger = position(job, checkpoints)
            check_alike({"step of the newest checkpoint": str(first)})
            if processes.is_main():
                runs.write_config(job.workdir, job.config, versions(), runs.data_info(job.dataset))
            say(describe(job, first))
            if first >= job.lengths.steps:
                say(f"nothing to do: trained for {first * job.lengths.batch:,} images already")
                return End(kind="finished", step=first)
            state, end = go_on(job, first, checkpoints, ledger, stop, watch, say)
            watch.note("end", end.step)
    words = last_word(job, state, end, stop)
    if failures:
        raise CheckpointError(
            f"training went on to step {end.step:,}, but {len(failures)} checkpoint(s) could not be written: "
            f"{failures[-1]}"
        )
    say(words)
    return end


def checkpoints_of(job: Job, failures: list[str], say: Say) -> Checkpoints:
    """Those of the run. A save that fails does not end it: it is said, logged, and put down in `failures`."""

    def failed(step: int, error: CheckpointError) -> None:
        failures.append(str(error))
        say(f"error: {error}")
        append_record(job.workdir, {"step": step, "images": step * job.lengths.batch, "error": str(error)})

    keep = job.config.checkpoint.keep
    return Checkpoints(job.workdir / "checkpoints", keep=keep, metadata=job.metadata, on_failure=failed)


def go_on(
    job: Job,
    first: int,
    checkpoints: Checkpoints,
    ledger: Ledger,
    stop: StopRequest,
    watch: Watchdog,
    say: Say,
) -> tuple[TrainState | None, End]:
    """Compiles and trains from step `first` on."""
    watch.note("latents", first)
    saved = checkpoints.latest is not None  # perhaps of step 0: experiments.convert writes one
    taken = None if saved else taken_for(job, first, say, watch.note)
    watch.note("compile", first)
    step = compile_step(job, say)
    if processes.any_process(stop.requested is not None):
        return None, End(kind="stopped", step=first)
    if job.lengths.minutes:
        say(
            f"training saves and ends after {job.lengths.minutes:g} minutes, if not before (config.train.minutes)"
        )
    watch.note("restore", first)
    state = with_taken(start_state(job, checkpoints, first), taken, job)
    return run_loop(job, state, first, step, checkpoints, ledger, stop, watch)


def position(job: Job, checkpoints: Checkpoints) -> tuple[int, Ledger]:
    """The step to go on from, and the sums of the log there."""
    step = checkpoints.latest
    if step is None:
        return 0, Ledger()
    saved = checkpoints.metadata(step)
    check_same(job, step, saved)
    return step, Ledger(saved["progress"])


def compile_step(job: Job, say: Say) -> Callable:
    """The training step as a program of these devices; says how long that took and what memory it needs."""
    say("compiling the step ...")
    start = time.monotonic()
    compiled = job.lower().compile()
    say(f"compiled in {time.monotonic() - start:.1f} s")
    say(tables.memory_text(job.abstract, job.shardings, compiled))
    return compiled


def start_state(job: Job, checkpoints: Checkpoints, first: int) -> TrainState:
    """The state after `first` steps, on the devices."""
    if checkpoints.latest is not None:
        return checkpoints.restore(first, job.abstract)
    return xla_flags.jit_seldom(initialiser(job.config, job.method, job.spec), out_shardings=job.shardings)()


def run_loop(
    job: Job,
    state: TrainState,
    first: int,
    step: Callable,
    checkpoints: Checkpoints,
    ledger: Ledger,
    stop: StopRequest,
    watch: Watchdog,
) -> tuple[TrainState, End]:
    """The loop, with everything that needs closing."""
    left = countdown(job.lengths.minutes)
    with (
        MetricWriter(job.workdir, after_step=first) as writer,
        Progress(job.lengths.images, first * job.lengths.batch, left=left) as progress,
        batches(job, first) as stream,
    ):
        parts = Parts(
            step=step,
            put=lambda batch: put_batch(batch, job.spec, job.mesh),
            record=recorder(job, writer, progress),
            advance=progress.advance,
            checkpoints=checkpoints,
            stop=stop,
            time_is_up=lambda: left() <= 0,
            hooks=hooks(job, progress.say),
            note=watch.note,
        )
        return train(state, first, stream, parts, job.lengths, ledger)


def countdown(minutes: float) -> Callable[[], float]:
    """Seconds that are left of so many minutes from now on; without end where they are 0."""
    end = time.monotonic() + 60 * minutes if minutes else math.inf
    return lambda: end - time.monotonic()


def recorder(job: Job, writer: MetricWriter, progress: Progress) -> Callable[[dict[str, Any]], None]:
    """Writes a record and shows it, with the share of the devices' peak where that is known."""
    devices = job.mesh.devices
    peak = peak_flops(devices.flat[0].device_kind, job.config.model.dtype)

    def record(values: Mapping[str, Any]) -> None:
        if peak:
            speed = values["images_per_second"]
            values = {**values, "mfu": utilisation(job.flops_per_image, speed, peak, devices.size)}
        writer.write(values)
        progress.report(values)

    return record


def last_word(job: Job, state: TrainState | None, end: End, stop: StopRequest) -> str:
    """How it ended (state None: before the first step); what a training that broke leaves is written here."""
    signal_name = stop.requested or "SIGTERM to one of the processes"
    if state is None:
        return f"stopped by {signal_name} before step {end.step + 1}: there is nothing new to save"
    if end.kind == "finished":
        images = end.step * job.lengths.batch
        return f"finished: {images:,} images, checkpoint in {job.workdir}/checkpoints/{end.step}"
    if end.kind == "time is up":
        minutes, images = job.lengths.minutes, end.step * job.lengths.batch
        write_json(job.workdir / TIME_IS_UP, {"step": end.step, "images": images, "minutes": minutes})
        return f"config.train.minutes={minutes:g} are over after step {end.step}: saved; the same command goes on"
    if end.kind == "stopped":
        return f"stopped by {signal_name} after step {end.step}: saved; the same command goes on from there"
    folder = save_failure(job.workdir, end.step, state, end.batch, job.metadata)
    return (
        f"error: the loss or its gradient was not finite in step {end.step}; the batch, and the state before "
        f"it, are in {folder}. Lower optimizer.learning_rate or optimizer.clip, or look at the batch"
    )


def stop_signals() -> tuple[signal.Signals, ...]:
    """Those that we answer ourselves: see StopRequest."""
    return SIGNALS if processes.process_count() == 1 else (signal.SIGINT,)


def use_compilation_cache(config: ConfigDict) -> None:
    """Programs are compiled once for all runs of this user."""
    folder = config.compilation_cache
    if folder == "default":
        folder = str(Path.home() / ".cache" / "soda_jax" / "compilation")
    if folder:
        jax.config.update("jax_compilation_cache_dir", os.path.expanduser(folder))


def quiet_libraries() -> None:
    """Their notes are shown with --verbosity=1; app.run() has raised an unset verbosity to INFO."""
    if flags.FLAGS.verbosity == logging.INFO:
        logging.set_verbosity(logging.WARNING)


def say(text: str) -> None:
    """A line from process 0."""
    if processes.is_main():
        print(text, flush=True)


def parse_flags(argv: list[str]) -> list[str]:
    """absl's, with one line instead of a traceback for a config, or a key of it, that does not exist."""
    try:
        return app.parse_flags_with_usage(argv)
    except (KeyError, AttributeError, ImportError, OSError) as error:
        words = runs.one_line(error)
        raise SystemExit(
            f"error: --config: {words}; experiments/configs/default.py lists every key"
        ) from error


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "workdir"])
    app.run(main, flags_parser=parse_flags)
