"""The export of a run: what is in the folder, whoever trained it, and what is said when it cannot be made."""

import dataclasses
import functools
import json
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from experiments import build, export, networks, runs
from experiments.runs import open_run
from experiments.spaces import run_space, space_of
from soda_jax.export import bundle, load, numpy_encoder
from soda_jax.export.encoders import describe, in_float32, restored
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import state_shardings
from soda_jax.training.checkpoints import Checkpoints
from tests import bundles, made_up_run, small_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_run.write(tmp_path_factory.mktemp("run"))


@pytest.fixture(scope="module")
def exported(workdir, tmp_path_factory):
    """The bundle of the newest step, which was probed."""
    out = tmp_path_factory.mktemp("out") / "bundle"
    scores = {name: made_up_run.scores(0.5) for name in ("z", "pooled", "untrained", "pixels")}
    found = {"labels": {"hue": scores}, "chance": {"hue": 0.25}, "sizes": {"train": 96, "test": 40}}
    (workdir / "probe" / "4").mkdir(parents=True)
    (workdir / "probe" / "4" / "results.json").write_text(json.dumps(found))
    assert export.main([f"--workdir={workdir}", f"--out={out}", "--licence=CC0"]) == 0
    return out


def test_the_bundle_holds_the_averaged_encoder(workdir, exported):
    run = open_run(workdir, 4)
    assert sorted(path.name for path in exported.iterdir()) == sorted(
        [*bundle.FILES, bundle.MANIFEST, "orbax"]
    )
    images = jnp.asarray(bundles.images((16, 16, 3), 5))
    expected = run.method.encode(run.ema_variables(), images)
    found = load(exported)(images)
    names = ("z", "pooled")
    assert bundles.distance({n: found[n] for n in names}, {n: expected[n] for n in names}) < 1e-5
    raw = run.method.encode(open_run(workdir, 2).ema_variables(), images)
    assert np.abs(raw["z"] - found["z"]).max() > 1e-3


def test_what_is_said_of_it(exported):
    config = json.loads((exported / "config.json").read_text())
    assert (config["format"], config["family"], config["method"]) == (1, "resnet", "soda")
    assert (config["step"], config["images"], config["features"]) == (4, 32, {"z": 6, "pooled": 64})
    assert config["encoder_sha256"] == bundle.sha256(exported / "params.safetensors")
    assert config["training_config"]["model"]["latent_dim"] == 6
    card = (exported / "MODEL_CARD.md").read_text()
    assert "CC0" in card and "| hue | 25.0% | 50.0 [48.5, 51.5] |" in card and "24 train" in card
    preprocessing = json.loads((exported / "preprocessing.json").read_text())
    assert preprocessing["size"] == {"height": 16, "width": 16} and preprocessing["mean"] == [0.5] * 3
    u = np.arange(256)
    scaled = (u / 255 - preprocessing["mean"][0]) / preprocessing["std"][0]
    one_hue = np.broadcast_to(u.astype(np.uint8)[:, None, None, None], (256, 16, 16, 3))
    np.testing.assert_allclose(numpy_encoder.scaled(one_hue, [16, 16, 3])[:, 0, 0, 0], scaled, atol=1e-6)


def test_a_zoom_is_told_to_whoever_prepares_images(workdir):
    run = open_run(workdir, 4)
    config = run.config.copy_and_resolve_references()
    config.data.zoom = 1.25
    told = export.preprocessing(dataclasses.replace(run, config=config))
    assert told["zoom"] == 1.25 and told["crop"].endswith("the middle, its sides 1 / 1.25 of it")
    assert export.preprocessing(run)["crop"] == "the largest square in the middle"


def test_the_same_command_finds_it_and_another_step_does_not_replace_it(workdir, exported, capsys):
    before = {path.name: path.stat().st_mtime_ns for path in exported.iterdir()}
    assert export.main([f"--workdir={workdir}", f"--out={exported}"]) == 0
    assert "step 4 is exported already" in capsys.readouterr().out
    assert export.main([f"--workdir={workdir}", f"--out={exported}", "--step=2"]) == 1
    assert export.main([f"--workdir={workdir}", f"--out={exported}", "--dtype=bfloat16"]) == 1
    assert capsys.readouterr().err.count("is there already: give another folder, or delete it") == 2
    assert {path.name: path.stat().st_mtime_ns for path in exported.iterdir()} == before


def test_readers_are_reported_and_one_that_disagrees_leaves_nothing(workdir, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr(export, "AGREEMENT", -1.0)
    assert export.main([f"--workdir={workdir}", f"--out={tmp_path / 'b'}"]) == 1
    assert re.search(r"JAX reader is off by .*nothing was exported", capsys.readouterr().err)
    assert not (tmp_path / "b").exists()
    monkeypatch.undo()
    assert export.main([f"--workdir={workdir}", f"--out={tmp_path / 'b'}"]) == 0
    said = capsys.readouterr().out
    assert len(re.findall(r"agrees to \d\.\de[-+]\d\d", said)) == len(export.readers(tmp_path / "b"))
    assert not [path for path in tmp_path.iterdir() if path.name != "b"]


def test_what_cannot_be_exported(tmp_path, capsys):
    small_run.write(tmp_path / "young", steps=())
    for arguments, words in (
        ([f"--workdir={tmp_path}", f"--out={tmp_path / 'b'}"], "expected a run"),
        ([f"--workdir={tmp_path / 'young'}", f"--out={tmp_path / 'b'}"], "no checkpoint yet"),
        ([f"--workdir={tmp_path / 'young'}", f"--out={tmp_path / 'b'}", "--step=3"], "--step=3"),
    ):
        assert export.main(arguments) == 1
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_it_does_not_matter_how_many_devices_trained_it(workdir, exported, tmp_path):
    """The same state, cut over eight devices when it was saved."""
    c = small_run.config()
    runs.write_config(tmp_path, c, {}, runs.data_info(build.dataset(c)))
    state = small_run.initial_state()
    moved = jax.tree.map(lambda x: x * (1 + 0.1 * 4), state.ema_params)
    state = state.replace(step=state.step + 4, ema_params=moved)
    places = state_shardings(jax.eval_shape(lambda: state), make_mesh(2, 4), smallest=100)
    assert any(not place.is_fully_replicated for place in jax.tree.leaves(places.ema_params["encoder"]))
    with Checkpoints(tmp_path / "checkpoints", keep=3, metadata={}) as checkpoints:
        checkpoints.save(4, jax.device_put(state, places), {})
    export.export(open_run(tmp_path), tmp_path / "b")
    for name in ("params.safetensors", "encoder.onnx"):
        assert (tmp_path / "b" / name).read_bytes() == (exported / name).read_bytes()


# Which encoders ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", networks.ENCODERS)
def test_every_encoder_that_a_config_can_name_has_a_family(name):
    c = small_run.config()
    c.model.encoder, c.model.dtype = name, "bfloat16"
    module = in_float32(networks.encoder(c))
    assert module.dtype == np.float32
    text = json.dumps(describe(module))
    assert restored(json.loads(text)) == module


def test_a_network_without_a_family_and_a_family_of_tomorrow():
    with pytest.raises(ValueError, match="add a line"):
        describe(networks.denoiser(small_run.config(), 3))
    for wrong in ({"family": "mixer", "fields": {}}, {"family": "vit", "fields": {"registers": 4}}):
        with pytest.raises(ValueError, match="update it"):
            restored(wrong)


def test_a_loaded_encoder_is_a_pure_function():
    """It can be differentiated, mapped and compiled with others."""
    encoder = bundles.encoder("resnet18")
    images = bundles.images((16, 16, 3), 2).astype(np.float32) / 127.5 - 1

    def loss(x, scale):
        return scale * encoder(x)["z"].sum()

    gradient = jax.jit(jax.grad(functools.partial(loss, scale=2.0)))(images)
    step = 1e-2 * np.sign(gradient)
    assert gradient.shape == images.shape
    change = loss(0.9 * images + step, 2.0) - loss(0.9 * images, 2.0)
    assert change > 0


def test_its_features_are_a_space_that_is_named_by_the_weights(workdir):
    spaces = [run_space(workdir, step) for step in (2, 4, None)]
    names = [space.name for space in spaces]
    assert names[0] != names[1] == names[2] and re.fullmatch(r"encoder_[0-9a-f]{16}_pooled", names[0])
    assert spaces[0].size == small_run.SIDE and spaces[0].channels == 3
    images = jax.ShapeDtypeStruct((2, small_run.SIDE, small_run.SIDE, 3), np.uint8)
    assert jax.eval_shape(spaces[0].features, spaces[0].variables, images).shape == (2, 64)
    assert space_of(f"run:{workdir}").name == names[1]
