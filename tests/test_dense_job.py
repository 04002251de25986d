"""Dense tasks without training: what a command line becomes, what is refused, what is said at the end."""

import dataclasses
import json
from types import SimpleNamespace

import jax
import numpy as np
import pytest

from data.builders import store, views3d
from data.errors import DataError
from data.sources import open_data_set
from experiments import build, dense, job, methods
from experiments.configs import dense as recipe
from soda_jax.methods.dense import Landmarks, Segmentation
from soda_jax.training.step import make_step
from tests import prepared_data

PLAN = views3d.Plan(train=4, test=2, views=2)


def config_of(**changes):
    config = recipe.get_config()
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


def method_of(config):
    return methods.method(config, build.batch_spec(config))


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    folder = tmp_path_factory.mktemp("data")
    store.write(views3d.recipe(PLAN), folder)
    return folder


@pytest.mark.parametrize(
    ("flags", "name"),
    [
        ([], "fraction_1"),
        (["--frozen"], "frozen_fraction_1"),
        (["--fraction=0.1", "--start=scratch"], "fraction_0.1_scratch"),
        (["--data=faces:1.0.0", "--frozen", "--start=trained"], "faces_1.0.0_frozen_fraction_1"),
    ],
)
def test_the_folder_is_named_by_what_was_asked_for(flags, name):
    arguments = dense._parser().parse_args(["--workdir=runs/x", "--task=landmarks", *flags])
    assert dense.folder_of(arguments) == name


def test_the_command_holds_what_was_asked_for_and_what_the_data_set_has(place):
    config = config_of(**{"data.dir": str(place)})
    arguments = dense._parser().parse_args(["--workdir=x", "--task=landmarks", "--frozen", "--images=100"])
    found = dense.changes(SimpleNamespace(config=config), arguments)
    assert sorted(found) == [
        "--config.dense.classes=3",
        "--config.dense.frozen=True",
        "--config.dense.pairs=((2, 3),)",
        "--config.dense.points=6",
        "--config.dense.task=landmarks",
        "--config.dense.upright=True",
        "--config.train.images=100",
    ]


def test_a_data_set_without_masks_is_refused_before_anything_starts():
    prepared_data.single(1)
    run = SimpleNamespace(config=config_of(**{"data.dir": str(prepared_data.data_dir())}))
    arguments = dense._parser().parse_args(["--workdir=x", "--task=segmentation", "--data=single1"])
    with pytest.raises(DataError, match=r"'single1' .* has no masks, .* such as --data=views3d"):
        dense.changes(run, arguments)


def test_a_config_becomes_a_head_on_the_encoder_of_the_run():
    masks, points = (method_of(config_of(**{"dense.task": task})) for task in ("segmentation", "landmarks"))
    assert isinstance(masks, Segmentation) and isinstance(points, Landmarks)
    assert (
        masks.encoder == points.encoder and masks.encoder.latent_dim == recipe.get_config().model.latent_dim
    )
    assert (masks.head.classes, masks.head.stride, points.head.points, points.sigma) == (3, 2, 6, 2.0)
    spec = build.batch_spec(config_of(**{"dense.task": "landmarks", "train.batch": 4}))
    assert spec["points"].shape == (4, 6, 2) and "mask" not in spec and "target" not in spec
    net = {"finetune.method": "ddae", "ddae.tap": "out_2", "data.image_size": 48}
    assert method_of(config_of(**net)).encoder.tap == "out_2"


@pytest.mark.parametrize("task", dense.TASKS)
@pytest.mark.parametrize("origin", ["byol", "supervised", "repfusion", "ddae", "vit"])
def test_a_step_on_the_encoder_of_every_kind_of_run_keeps_the_shapes_of_the_state(origin, task):
    """In shapes; statistics of the head move, those of a frozen encoder would be none of the step's."""
    own = {"ddae": {"ddae.tap": "out_2", "data.image_size": 48}, "vit": {"model.encoder": "vit_Ti"}}.get(
        origin, {}
    )
    kind = "soda" if origin == "vit" else origin
    config = config_of(**{"finetune.method": kind, "dense.task": task, "train.batch": 4, **own})
    method, spec = method_of(config), build.batch_spec(config)
    state = jax.eval_shape(job.initialiser(config, method, spec))
    step = make_step(method, build.optimizer(config), build.ema(config), 2, config.seed)
    after, metrics = jax.eval_shape(step, state, spec)
    assert jax.tree.map(lambda x: (x.shape, x.dtype), after) == jax.tree.map(
        lambda x: (x.shape, x.dtype), state
    )
    assert metrics.keys() >= {"loss", "accuracy" if task == "segmentation" else "pixels"}
    assert state.params.keys() == {"encoder", "heads"} and "heads" in state.batch_stats


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dense.task": "depth"}, r"dense\.task='depth' is unknown"),
        ({"dense.decoding": "argmax"}, r"dense\.decoding='argmax' is unknown"),
        ({"dense.stride": 3}, r"dense\.stride=3 must be a power of 2 that divides data\.source_size=48"),
        ({"dense.stride": 128}, r"dense\.stride=128 must be a power of 2"),
        ({"finetune.method": "latent_prior"}, r"its encoder is that of another run"),
        (
            {"finetune.method": "finetune"},
            r"finetune\.method='finetune': begin with the run that this one began with",
        ),
        ({"finetune.method": "dense"}, r"finetune\.method='dense': begin with the run"),
        ({"finetune.start": "here"}, r"finetune\.start='here' is unknown"),
    ],
)
def test_what_it_cannot_do_is_told_by_key(changes, words):
    with pytest.raises(ValueError, match=words):
        method_of(config_of(**changes))


def test_a_frozen_encoder_has_no_rate_at_all(monkeypatch):
    """Its weights do not decay either: what the optimiser is given."""
    given = []
    monkeypatch.setattr(build, "make_optimizer", lambda config, rates=None: given.append(rates))
    for frozen in (False, True):
        build.optimizer(config_of(**{"dense.frozen": frozen}))
    assert "encoder" not in given[0] and given[1]["encoder"] == 0.0
    assert given[0]["encoder/stage4_block1"] == 0.75 and "encoder/head" not in given[0]


def test_other_classes_and_points_are_told_with_what_to_set(place, tmp_path):
    changes = {"data.dir": str(place), "dense.classes": 19, "dense.pairs": (), "train.batch": 8}
    with pytest.raises(
        ValueError, match=r"set --config\.dense\.classes=3 --config\.dense\.pairs=\(\(2, 3\),\)$"
    ):
        job.prepare(config_of(**changes), tmp_path)
    turned = {"data.dir": str(place), "dense.task": "landmarks", "dense.rotation": 10.0}
    with pytest.raises(
        DataError, match=r"config\.dense\.rotation = 10\.0: expected 0: keypoints of this data set"
    ):
        job.prepare(config_of(**turned, **{"dense.upright": True}), tmp_path)


def test_left_and_right_classes_are_not_mirrored(place, monkeypatch, tmp_path):
    """Refused where a config asks for it; asked for by the main without; points are none of it."""
    sided = dataclasses.replace(views3d.recipe(PLAN).dense, sided=True)
    for module in (dense, job):
        monkeypatch.setattr(module, "info_of", lambda dataset: sided)
    config = config_of(**{"data.dir": str(place), "train.batch": 8})
    with pytest.raises(ValueError, match=r"^dense\.mirror=0\.5: .* set --config\.dense\.mirror=0\.0$"):
        job.prepare(config, tmp_path)
    job.check_dense(config_of(**{"dense.mirror": 0.0}), build.dataset(config))
    job.check_dense(config_of(**{"dense.task": "landmarks"}), build.dataset(config))
    for task in dense.TASKS:
        arguments = dense._parser().parse_args(["--workdir=x", f"--task={task}"])
        found = dense.changes(SimpleNamespace(config=config), arguments)
        assert ("--config.dense.mirror=0.0" in found) == (task == "segmentation")


def test_the_part_of_the_examples_holds_the_truth_too(place):
    whole, part = (
        build.dataset(config_of(**{"data.dir": str(place), "finetune.fraction": share}))
        for share in (1.0, 0.5)
    )
    assert (len(whole.split("train")), len(part.split("train"))) == (4, 2)
    assert len(part.split("train")[0]["masks"]) == 2
    assert "masks" not in open_data_set("views3d", place).split("train")[0]


RESULT = {
    "start": "trained",
    "frozen": True,
    "data": "views3d",
    "fraction": 0.5,
    "images": 5000,
    "sizes": {"train": 2048, "test": 4096},
}


def test_what_is_said_at_the_end():
    masks = {"miou": 0.91234, "miou_ci95": [0.9, 0.92], "iou": {"wall": 0.95, "floor": None}}
    assert dense.text({**RESULT, "task": "segmentation", **masks}) == (
        "segmentation on the run's encoder, which is frozen: 2,048 examples of views3d (50.00%), 5,000 images seen; in "
        "% [95% interval over scenes] of 4,096 test images\n  miou: 91.23 [90.00, 92.00]\n  wall 95.00, floor -"
    )
    points = {"nme": 0.05, "nme_ci95": [0.04, 0.06], "points": {"top": 0.031}}
    words = dense.text({**RESULT, "task": "landmarks", "start": "scratch", "frozen": False, **points})
    assert words.startswith("landmarks from scratch: 2,048 examples")
    assert words.endswith("nme: 5.00 [4.00, 6.00]\n  top 3.10")
    assert json.dumps(points)


def test_pictures_show_truth_and_answers_side_by_side():
    images = np.zeros((2, 8, 8, 3), np.uint8)
    mask = np.zeros((2, 8, 8), np.uint8)
    mask[:, 2:4] = 1
    method = method_of(config_of())
    truth, found = dense.answers({"image": images, "mask": mask, "found": np.zeros((2, 8, 8), int)}, method)
    assert (truth[0], found[0]) == ("truth", "found")
    assert truth[1][:, 2:4].any() and not truth[1][:, 4:].any() and not found[1].any()
    points = np.full((2, 6, 2), 4.0, np.float32)
    seen = np.array([[2] * 6, [0] * 6])
    method = method_of(config_of(**{"dense.task": "landmarks"}))
    truth, _ = dense.answers({"image": images, "points": points, "found": points, "seen": seen}, method)
    assert truth[1][0].any() and not truth[1][1].any()
    assert dense.enlarged(images, method).shape == truth[1].shape
