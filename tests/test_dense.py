"""Dense tasks through the real training: they stop and go on, measure what they trained, and learn eight scenes."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from data.builders import store, views3d
from experiments import build, dense, train
from experiments.configs import dense as recipe
from experiments.job import prepare
from experiments.runs import open_run
from soda_jax.report.figures import describe
from soda_jax.training import checkpoints
from soda_jax.training.signals import StopRequest
from tests import small_job
from tests.small_config import BATCH, STEPS
from tests.test_methods_trained import QUIET

PLAN = views3d.Plan(train=8, test=3, views=2)
HEAD = {"dense.width": 16, "dense.mirror": 0.0, "dense.zoom": 0.0}
SHORT = {"train.batch": BATCH, "checkpoint.every_images": 4 * BATCH, "optimizer.warmup_images": 2 * BATCH}
SHORT |= {"train.log_every_images": 3 * BATCH, "probe.batch": 4, **HEAD}
LEARNED = 120  # steps
QUICK = {"optimizer.learning_rate": 5e-3, "finetune.layer_decay": 1.0}


@pytest.fixture(scope="module")
def origin(tmp_path_factory):
    """The workdir of a SODA run on eight scenes of 32 x 32 pixels."""
    place, workdir = tmp_path_factory.mktemp("data"), tmp_path_factory.mktemp("origin")
    store.write(views3d.recipe(PLAN), place)
    data = {
        "name": "views3d",
        "dir": str(place),
        "channels": 3,
        "pair": "pose",
        "image_size": 32,
        "source_size": 32,
    }
    networks = {"encoder_width": 4, "patch": 4}
    changes = {f"data.{key}": value for key, value in data.items()}
    small_job.run(workdir, {**QUIET, **changes, **{f"model.{key}": value for key, value in networks.items()}})
    return workdir


def job_of(workdir, folder, task, **changes):
    """The job of a dense task on this run; one program for all of them, whatever the views."""
    config = recipe.get_config(str(workdir))
    lengths = {"dense.task": task, "train.images": LEARNED * BATCH}
    with config.unlocked():
        config.update_from_flattened_dict({**SHORT, **QUICK, **lengths, **changes})
    return prepare(config, folder)


@pytest.fixture(scope="module", params=dense.TASKS)
def learned(request, origin, tmp_path_factory):
    """A finished training for a task."""
    folder = tmp_path_factory.mktemp(request.param)
    assert train.run(job_of(origin, folder, request.param), StopRequest(), print).kind == "finished"
    return open_run(folder)


def test_it_learns_eight_scenes(learned):
    """As well as they can be answered; their test split is another matter: three scenes."""
    metric = {"segmentation": "accuracy", "landmarks": "pixels"}[learned.config.dense.task]
    rows = [row[metric] for row in small_job.records(learned.workdir) if metric in row]
    if metric == "accuracy":
        assert rows[0] < 0.75 and rows[-1] > 0.95
    else:
        assert rows[0] > 6 and rows[-1] < 2.5


def test_scores_and_pictures_are_those_of_the_answers(learned):
    found, method = dense.results(learned), learned.method
    with dense.test_stream(learned, build.dataset(learned.config), batch=6) as stream:
        batch = next(stream)
    answers = np.asarray(method.predict(learned.ema_variables(), jnp.asarray(batch["image"])))
    if method.task == "segmentation":
        assert found["accuracy"] == pytest.approx(np.mean(answers == batch["mask"]), abs=2e-3)
        assert found["iou"].keys() == {"wall", "floor", "object"}
    else:
        assert found["nme"] == pytest.approx(nme(answers, batch), rel=1e-3)
        assert found["divided_by"] == "diagonal of the object's box"
    low, high = found[f"{'accuracy' if method.task == 'segmentation' else 'nme'}_ci95"]
    assert 0 < low < high and found["sizes"] == {"train": 8, "test": 6}
    columns = dense.picture(learned)
    assert [name for name, _ in columns] == ["image", "truth", "found"]
    assert len({images.shape for _, images in columns}) == 1 and len(columns[0][1]) == 3


def nme(answers, batch):
    """By hand."""
    apart = np.linalg.norm(answers - batch["points"], axis=-1) / batch["scale"][:, None]
    return np.mean([a[s].mean() for a, s in zip(apart, batch["seen"] > 0, strict=True)])


def test_it_stops_and_goes_on_bit_for_bit_from_the_averaged_encoder(origin, tmp_path):
    moving = {"dense.mirror": 0.5, "dense.zoom": 0.2, "dense.colour": 0.3}
    for name, pieces in (("unbroken", [9]), ("broken", [4, 3, 2])):
        job = job_of(origin, tmp_path / name, "segmentation", **moving)
        for steps in pieces:
            assert train.run(job, small_job.StopAt(steps), print).kind == "stopped"
    ours, theirs = (
        checkpoints.load_as_saved(tmp_path / name / "checkpoints", 9) for name in ("unbroken", "broken")
    )
    assert ours.keys() == theirs.keys()
    for key, value in ours.items():
        np.testing.assert_array_equal(value, theirs[key], err_msg=key)
    about = json.loads((tmp_path / "broken" / "finetune.json").read_text())
    assert (about["workdir"], about["step"]) == (str(origin), STEPS)


def test_the_main_measures_what_it_trained(origin, capfd):
    """Landmarks, the encoder frozen: a folder by what was asked for, errors that are those of the answers."""
    changes = [f"--config.{key}={value}" for key, value in SHORT.items()]
    arguments = [f"--workdir={origin}", "--task=landmarks", "--frozen", f"--images={9 * BATCH}", *changes]
    assert dense.main(arguments) == 0
    folder = origin / "dense" / "landmarks" / str(STEPS)
    found = json.loads((folder / "results.json").read_text())
    assert found == json.loads((folder / "frozen_fraction_1" / "results.json").read_text())
    assert found["sizes"] == {"train": 8, "test": 6} and found["frozen"] and found["fraction"] == 1
    assert describe(folder / "test.png") == dense.text(found)
    variables = open_run(folder / "frozen_fraction_1").ema_variables()
    start = open_run(origin).encoder_variables()["params"]["encoder"]
    kept = variables["params"]["encoder"]
    np.testing.assert_array_equal(start["stem"]["conv"]["kernel"], kept["stem"]["conv"]["kernel"])
    assert dense.main(arguments) == 0
    assert "nothing to do: trained for" in capfd.readouterr().out
    assert json.loads((folder / "results.json").read_text()) == found


def test_a_run_without_a_checkpoint_and_flags_that_are_none(tmp_path, capsys):
    small_job.job(tmp_path)
    assert dense.main([f"--workdir={tmp_path}", "--task=landmarks"]) == 1
    assert "config.json" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        dense.main([f"--workdir={tmp_path}", "--task=landmarks", "--fractoin=0.1"])
    assert "unexpected arguments: --fractoin=0.1" in capsys.readouterr().err
