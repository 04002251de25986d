"""Probes a run: `python -m experiments.probe --workdir=DIR [--step=N | --follow] [--tasks=A,B] [--config.probe.KEY=V]`.

Linear heads and k-NN for every label of the data set, on the frozen EMA encoder's z and pooled features;
beside them the same probe of the untrained encoder and of raw pixels. Heads are chosen on a held-out part of
the training split (views of a scene are not parted) and report on the test split once. The config is that of
the run, in DIR/config.json; its `probe` and `disentanglement` keys, `ddae.tap`, `ddae.level`, `ddae.draws` and
`data.dir` can be set here. Writes DIR/probe/<step>/results.json and prints the table. A step that was probed with the
same settings is shown again, not probed again.

--grid     of config.method='ddae': every pair of a layer and a noise level instead, into DIR/probe_grid: probe_grid.py
--step=N   probes that checkpoint (default: the newest)
--follow   probes each new checkpoint until training has ended, looking every --every seconds
--tasks=A,B,...   linear,knn (always made), and any of these, which add to the same results.json:
             dci, mig, sap, factor_vae   how far the dimensions and sections of z keep the labels apart
             sections   the linear probe on each section of z alone
             f1         of labels with two classes
"""

import json
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import flags

from experiments import build, cluster, probe_grid, runs, xla_flags
from experiments.probe_baselines import baselines
from experiments.probe_exhibit import leave, tasks_text
from experiments.probe_flags import parse
from experiments.probe_table import table_text
from experiments.probe_tasks import ALWAYS, add_tasks, kept, with_tasks
from experiments.probe_tasks import made_from as tasks_made_from
from experiments.probing import (
    FEATURES,
    Job,
    Tables,
    by_label,
    measured,
    prepare,
    settings_hash,
    tables,
    write_json,
)
from experiments.runs import Run, open_run
from soda_jax.evaluation.scores import Scores, chance
from soda_jax.parallel import processes
from soda_jax.parallel.joining import JoinError
from soda_jax.parallel.preflight import check_alike
from soda_jax.training import checkpoints
from soda_jax.training.checkpoints import CheckpointError
from soda_jax.training.signals import sigterm_raises, status_of
from soda_jax.types import Tree


def trained(job: Job, variables: Tree) -> tuple[dict[str, dict[str, Scores]], Tables]:
    """feature -> label -> scores, and the tables they were measured on."""
    found = tables(job, job.encoder, variables)
    return {name: measured(job, found, name, name) for name in FEATURES}, found


def results(job: Job, step: int, variables: Tree) -> dict[str, Any]:
    """What is written to workdir/probe/<step>/results.json; the same bytes whenever it is made again."""
    scores, found = trained(job, variables)
    base = baselines(job)
    labels = {name: {**rows, **base["labels"][name]} for name, rows in by_label(scores).items()}
    better = {name: better_untrained(rows) for name, rows in labels.items()}
    order = ("z", "pooled", "untrained", "pixels", "untrained_z", "untrained_pooled")
    for name, rows in labels.items():
        rows = {**rows, "untrained": untrained_row(rows, better[name])}
        labels[name] = {kind: rows[kind] for kind in order}
    classes = job.dataset.labels
    return {
        "step": step,
        "images": step * job.run.config.train.batch,
        "labels": labels,
        "chance": {name: chance(found.train, found.test, name, count) for name, count in classes.items()},
        "classes": classes,
        "untrained_features": {name: kind.removeprefix("untrained_") for name, kind in better.items()},
        "untrained_statistics": base["statistics"],
        "pixels_side": base["pixels_side"],
        "sizes": {"train": len(found.train), "test": len(found.test)},
        "knn_k": job.settings.knn_k,
        "made_from": made_from(job, variables),
    }


def better_untrained(rows: Mapping[str, Scores]) -> str:
    """The feature of the untrained encoder that did better on the held-out part of train."""
    return max(("untrained_pooled", "untrained_z"), key=lambda name: rows[name]["holdout"])


def untrained_row(rows: Mapping[str, Scores], better: str) -> Scores:
    """The untrained encoder's scores; no held-out part chooses for k-NN, so that is the better one on test."""
    nearest = max(("untrained_pooled", "untrained_z"), key=lambda name: rows[name]["knn"])
    return {**rows[better], **{key: rows[nearest][key] for key in ("knn", "knn_ci95")}}


def made_from(job: Job, variables: Tree) -> dict[str, str]:
    """Hashes of all that the results depend on."""
    return {"encoder": runs.fingerprint(variables), "settings": settings_hash(job)}


# One checkpoint, or one after the other ---------------------------------------------------------------------


def probe_step(job: Job, step: int) -> dict[str, Any]:
    """The results of a step, from the workdir if they are there and made from the same; prints the table."""
    path = job.folder / str(step) / "results.json"
    variables = job.run.encoder_variables(step)
    check_alike({"step": str(step), "tasks": ",".join(job.tasks), **made_from(job, variables)})
    found = json.loads(path.read_text()) if path.is_file() else {}
    if found.get("made_from") == made_from(job, variables):
        job.say(f"step {step} is probed already: {path}")
    else:
        job.say(f"probing step {step}")
        found = results(job, step, variables) | kept(found, tasks_made_from(job, variables))
        write_json(path, found)
        job.say(f"wrote {path}")
    found = add_tasks(job, path, variables, found)
    leave(job, step, found)
    job.say("\n".join(text for text in (table_text(found), tasks_text(found)) if text))
    return found


def follow(
    workdir: Path,
    overrides: Mapping[str, Any],
    every: float,
    wait: Callable[[float], None] = time.sleep,
    tasks: Sequence[str] = ALWAYS,
) -> None:
    """Probes the checkpoints that are there and each new one; returns when training has ended.

    A checkpoint that training has deleted before its turn came is passed over.
    """
    wait_for_config(workdir, every, wait)
    done: set[int] = set()
    probed = 0
    job = with_tasks(prepare(open_run(workdir, None, overrides)), tasks)
    while True:
        ended = training_has_ended(workdir)  # asked before looking: what comes in between is seen once more
        todo = [step for step in job.run.steps() if step not in done]
        for step in todo:
            probed += probe_if_there(job, step)
            done.add(step)
        if ended and not todo:
            job.say(f"training has ended, {probed} checkpoint(s) probed")
            return
        if not todo:
            wait(every)


def wait_for_config(workdir: Path, every: float, wait: Callable[[float], None]) -> None:
    """Training that was started beside the probe writes config.json before it compiles."""
    if workdir.is_dir() and not (workdir / "config.json").is_file():
        print(f"waiting for {workdir}/config.json: no training has started there yet", flush=True)
        while not (workdir / "config.json").is_file():
            wait(every)


def probe_if_there(job: Job, step: int) -> bool:
    """Probes a step unless its checkpoint is no longer there; says whether it was."""
    try:
        probe_step(job, step)
        return True
    except CheckpointError:
        if step in job.run.steps():
            raise
        job.say(f"step {step} was deleted before it could be probed (config.checkpoint.keep)")
        return False


def training_has_ended(workdir: Path) -> bool:
    """True when there is a checkpoint of the last step that config.json, as it is now, asks for.

    Also when training has diverged since it wrote config.json, which it does whenever it starts.
    """
    config = runs.restored(runs.read_config(workdir)["config"])
    started = (workdir / "config.json").stat().st_mtime_ns
    if any(folder.stat().st_mtime_ns > started for folder in workdir.glob("failure/step_*")):
        return True
    return max(checkpoints.steps(workdir / "checkpoints"), default=-1) >= build.lengths(config).steps


# The command line -------------------------------------------------------------------------------------------


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status: 0 only when all that was asked for has been probed."""
    xla_flags.set_up()
    try:
        values, overrides = parse(["probe", *(sys.argv[1:] if argv is None else argv)])
        if values["help"].value:
            print(f"{__doc__}\n{values.main_module_help() or values.get_help()}")
            return 0
        cluster.join_others(values)
        with sigterm_raises(), cluster.ending_together(Path(values["workdir"].value)):
            run_as_asked(values, overrides)
    except (ValueError, OSError, CheckpointError, JoinError, flags.Error) as error:
        print(f"experiments.probe: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt as stop:
        print("experiments.probe: stopped; the same command begins the step again", file=sys.stderr)
        return status_of(stop)
    return 0


def run_as_asked(values: flags.FlagValues, overrides: Mapping[str, Any]) -> None:
    """One checkpoint, or all of them as they come."""
    workdir, tasks = Path(values["workdir"].value), values["tasks"].value
    if values["follow"].value and processes.process_count() > 1:
        raise ValueError(
            "--follow is for one process: give --step to several, one checkpoint after the other"
        )
    if values["grid"].value:
        probe_grid_once(workdir, values, overrides)
    elif values["follow"].value:
        follow(workdir, overrides, values["every"].value, tasks=tasks)
    else:
        probe_once(workdir, values["step"].value, overrides, tasks)


def probe_once(
    workdir: Path, step: int | None, overrides: Mapping[str, Any], tasks: Sequence[str] = ALWAYS
) -> None:
    """Probes one checkpoint. ValueError where there is none."""
    run = with_checkpoint(open_run(workdir, step, overrides))
    probe_step(with_tasks(prepare(run), tasks), run.step)


def probe_grid_once(workdir: Path, values: flags.FlagValues, overrides: Mapping[str, Any]) -> None:
    """The grid of one checkpoint."""
    job = prepare(with_checkpoint(open_run(workdir, values["step"].value, overrides)))
    grid = probe_grid.asked(job, *(values[name].value for name in ("levels", "layers", "select")))
    variables = job.run.encoder_variables()
    check_alike({"step": str(job.run.step), "grid": str(grid), **made_from(job, variables)})
    probe_grid.probe_grid(job, job.run.step, variables, grid)


def with_checkpoint(run: Run) -> Run:
    """The same. ValueError where it has none."""
    if run.step is None:
        raise ValueError(
            f"{run.checkpoints} has no checkpoint yet: train first, or wait for one with --follow"
        )
    return run


if __name__ == "__main__":
    sys.exit(main())
