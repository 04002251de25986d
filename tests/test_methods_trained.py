"""Methods beside SODA through the real training: they stop and go on bit for bit, and leave what can be probed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import export, probe, runs, train
from experiments.configs import finetune
from experiments.job import prepare
from experiments.origins import taken_for
from experiments.runs import open_run
from soda_jax.export import load
from soda_jax.methods.base import FROZEN, UNAVERAGED
from soda_jax.training import checkpoints
from tests import small_job
from tests.small_config import BATCH, STEPS

NET = {
    "model.channels": 8,
    "model.multipliers": (1, 2),
    "model.attention": (False, True),
    "model.dropout": 0.1,
}
QUIET = {"monitor.every_images": 0}
TWO_VIEWS = {"siamese.projector": (8, 4), "siamese.predictor": (8, 4)}
DRAWING = {"samples.every_images": 6 * BATCH}
RECIPE = {  # of RepFusion, on a student of its own
    "model.encoder": "wrn_10_1",
    "data.crop_prob": 1.0,
    "data.crop_pad": 2,
    "optimizer.name": "sgd",
    "optimizer.decay": "l2",
    "optimizer.decayed": "all",
    "optimizer.schedule": "steps",
    "ema.ramp": "mmcv",
    "ema.batch_stats": False,
}
METHODS = {
    "ddae": {**NET, **QUIET, **DRAWING, "diffusion.schedule": "linear", "ddae.tap": "out_2"},
    "ddae_edm": {
        **NET,
        **QUIET,
        **DRAWING,
        "method": "ddae",
        "model.resample": "block",
        "diffusion.framework": "edm",
        "diffusion.schedule": "edm",
        "diffusion.steps": 18,
        "ddae.tap": "out_2",
        "ddae.level": 4,
        "ema.ramp": "power",
        "samples.sampler": "heun",
    },
    "ddae_dit": {
        **QUIET,
        **DRAWING,
        "method": "ddae",
        "model.denoiser": "dit",
        "model.dit_size": "custom",
        "model.dit_width": 16,
        "model.dit_depth": 2,
        "model.dit_heads": 2,
        "model.patch": 2,
        "diffusion.schedule": "linear",
        "ddae.tap": "block_1",
        "ddae.augment": 0.5,
        "ddae.classes": 5,
        "samples.guidance": 0.5,
        "optimizer.name": "muon",
        "ddae.self_condition": "block_0",
    },
    "byol": TWO_VIEWS,  # which has all that simclr and vicreg have, and more
    "supervised": {"supervised.classes": (5,)},
    "repfusion": {
        "data.source_size": 16,
        "data.image_size": 16,
        "supervised.classes": (5,),
        "repfusion.entropy_images": 5 * BATCH,
        "teacher.image_size": 16,
        "teacher.channels": 8,
        "teacher.multipliers": (1, 2),
        "teacher.blocks": 1,
        "teacher.attention": (False, True),
        "teacher.dtype": "float32",
        **RECIPE,
    },
}


def changes_of(name):
    """The dotted keys of a method."""
    return {"method": name, "train.accumulation": 2, "optimizer.hold_images": 3 * BATCH, **METHODS[name]}


def teacher(workdir):
    """A trained DDAE of 16 pixels."""
    own = {**METHODS["ddae"], "data.source_size": 16, "data.image_size": 16, "samples.every_images": 0}
    small_job.run(workdir, {"method": "ddae", **own, "train.images": 3 * BATCH})
    return workdir


# A U-Net is trained as the teacher here, and in test_finetune.py and test_probe_grid.py, and on labels in the former.
@pytest.fixture(scope="module", params=["ddae_dit", "byol", "repfusion"])
def trained(request, tmp_path_factory):
    """(name, workdir of an unbroken run, of one that was stopped twice)."""
    name, folder = request.param, tmp_path_factory.mktemp(request.param)
    changes = changes_of(name)
    if name == "repfusion":
        changes["teacher.workdir"] = str(teacher(folder / "teacher"))
    program = train.compile_step(small_job.job(folder / "unbroken", changes), print)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(train, "compile_step", lambda job, say: program)
        assert small_job.run(folder / "unbroken", changes).kind == "finished"
        for steps in (4, 5):
            stop = small_job.StopAt(steps)
            assert small_job.run(folder / "broken", changes, stop=stop).kind == "stopped"
        assert small_job.run(folder / "broken", changes).kind == "finished"
    return name, folder / "unbroken", folder / "broken"


def test_two_stops_change_no_bit(trained):
    _, unbroken, broken = trained
    state, other = (checkpoints.load_as_saved(path / "checkpoints", STEPS) for path in (unbroken, broken))
    assert state.keys() == other.keys()
    for key, value in state.items():
        np.testing.assert_array_equal(value, other[key], err_msg=key)
    assert small_job.records(unbroken) == small_job.records(broken)


def test_it_logs_what_it_says_of_itself_and_draws_if_it_can(trained):
    name, workdir, _ = trained
    records = small_job.records(workdir)
    named = {"repfusion": "reward", "byol": "spread"}
    assert all("loss" in r and named.get(name, "loss") in r for r in records if "loss" in r)
    readings = [r for r in records if "monitor/effective_rank" in r]
    assert bool(readings) == (not name.startswith("ddae"))
    assert (workdir / "samples").is_dir() == ("samples.every_images" in METHODS[name])


def test_it_can_be_probed(trained):
    """One short probe; BYOL's averaged networks are not among what is probed."""
    name, workdir, _ = trained
    short = ("--config.probe.images=200", "--config.probe.knn_k=2", "--config.probe.batch=8")
    assert probe.main([f"--workdir={workdir}", *short]) == 0
    found = json.loads((workdir / "probe" / str(STEPS) / "results.json").read_text())
    assert {"z", "pooled", "untrained", "pixels"} <= found["labels"]["label"].keys()
    run = open_run(workdir)
    variables = run.encoder_variables()
    parts = {"denoiser"} if name.startswith("ddae") else {"encoder"}
    assert variables["params"].keys() == parts
    assert UNAVERAGED not in variables["batch_stats"]


def test_its_encoder_can_be_exported(trained, capsys):
    """Features of the bundle are those that are probed; of a diffusion net they are those of clean images, at a tap."""
    name, workdir, _ = trained
    tap = {"ddae_dit": "block_1"}.get(name, "out_1")
    out, clean = workdir / "bundle", {"ddae.draws": 0, "ddae.level": 3, "ddae.tap": tap}
    overrides = clean if name.startswith("ddae") else {}
    if overrides:
        assert export.main([f"--workdir={workdir}", f"--out={out}"]) == 1
        assert "--grid --config.ddae.draws=0" in capsys.readouterr().err
    flags = [f"--config.{key}={value}" for key, value in overrides.items()]
    for text in ("wrote", "exported already"):
        assert export.main([f"--workdir={workdir}", f"--out={out}", *flags]) == 0
        assert text in capsys.readouterr().out
    run = open_run(workdir, overrides=overrides)
    side = run.config.data.source_size
    images = jnp.asarray(np.random.default_rng(0).integers(0, 256, (3, side, side, 1), np.uint8))
    expected, found = run.method.encode(run.encoder_variables(), images), load(out)(images)
    assert found.keys() == ({"z"} if overrides else {"z", "pooled"})
    for feature in found:
        np.testing.assert_allclose(found[feature], expected[feature], rtol=1e-4, atol=1e-5)
    if overrides:
        assert (
            export.main(
                [f"--workdir={workdir}", f"--out={out}", *flags[:1], "--config.ddae.level=4", flags[2]]
            )
            == 1
        )
        assert "is there already" in capsys.readouterr().err
        assert " ".join(flags[::-1]) in (out / "MODEL_CARD.md").read_text()


def test_its_own_encoder_is_what_fine_tuning_begins_with(trained):
    """The averaged parameters as they are, a student's head among them; of a diffusion net those up to the tap."""
    name, workdir, _ = trained
    job = prepare(finetune.get_config(str(workdir)), workdir / "tuned")
    taken = taken_for(job, 0, print, lambda phase, step: None)
    params = open_run(workdir).ema_variables()["params"]
    expected = dict(jax.tree.leaves_with_path(params.get("encoder", params.get("denoiser"))))
    found = dict(jax.tree.leaves_with_path(taken["params"]["encoder"]))
    assert found.keys() == dict(jax.tree.leaves_with_path(job.abstract.params["encoder"])).keys()
    assert (found.keys() < expected.keys()) == name.startswith("ddae")
    for path, value in found.items():
        np.testing.assert_array_equal(value, expected[path])


def test_the_student_learns_from_the_averaged_net_of_the_teacher(tmp_path):
    """Its checkpoints hold the teacher, bit for bit, and teacher.json says whose it is."""
    changes = {**changes_of("repfusion"), "teacher.workdir": str(teacher(tmp_path / "teacher"))}
    assert small_job.run(tmp_path / "student", changes | {"train.images": 2 * BATCH}).kind == "finished"
    about = json.loads((tmp_path / "student" / "teacher.json").read_text())
    run = open_run(tmp_path / "teacher")
    assert about == {
        "workdir": str(tmp_path / "teacher"),
        "step": 3,
        "teacher": runs.fingerprint(run.ema_variables()),
    }
    kept = open_run(tmp_path / "student").ema_variables()["batch_stats"][FROZEN]["teacher"]
    jax.tree.map(np.testing.assert_array_equal, kept, run.ema_variables()["params"])


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"teacher.workdir": ""}, "teacher.workdir='' must name a trained DDAE run"),
        (
            {"teacher.channels": 16},
            r"set --config.teacher.channels=8, or take --config=.*repfusion_fashion_mnist",
        ),
    ],
)
def test_a_teacher_that_does_not_fit_is_told_before_training(changes, words, tmp_path):
    usual = {"teacher.workdir": str(teacher(tmp_path / "teacher"))}
    with pytest.raises(ValueError, match=words):
        small_job.run(tmp_path / "student", {**changes_of("repfusion"), **usual, **changes})


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        (
            {"method": "supervised"},
            r"supervised.classes=\(10,\): data set 'single1' has {'label': 5}, so set \(5,\)",
        ),
        (
            {"method": "simclr", "samples.every_images": 8},
            "samples.every_images must be 0 with method='simclr'",
        ),
        ({"method": "ddae", "monitor.every_images": 8}, "monitor.every_images must be 0 with method='ddae'"),
        (
            {**changes_of("ddae"), "diffusion.framework": "edm"},
            "does not go with diffusion.schedule='linear'",
        ),
        (
            {**changes_of("ddae_edm"), "diffusion.framework": "ddpm"},
            "does not go with diffusion.schedule='edm'",
        ),
        (
            {**changes_of("repfusion"), "repfusion.time": "uniform", "repfusion.t_max": 1001},
            "the teacher's 1000 times",
        ),
        ({**changes_of("repfusion"), "repfusion.distance": "kl"}, "repfusion.distance='kl' is unknown"),
        ({**changes_of("ddae_dit"), "ddae.classes": 10}, "ddae.classes=10: .* has {'label': 5}, so set 5"),
        ({**changes_of("ddae"), "data.source_size": 16}, "with method='ddae' they must be alike"),
        ({**changes_of("ddae"), "ddae.tap": "out_7"}, r"ddae.tap: expected one of in_1, .*found 'out_7'"),
    ],
)
def test_what_does_not_fit_is_told_before_training(changes, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        small_job.job(tmp_path, changes)
