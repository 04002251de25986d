"""Classes through noise, without training: levels, configs, the methods they make, what is said and shown."""

import json

import jax
import pytest

from experiments import build, methods, noisy_classifier, runs
from experiments.configs import noisy_classifier as recipe
from experiments.job import initialiser
from soda_jax.diffusion.frameworks import EDM
from soda_jax.methods.base import FROZEN
from soda_jax.methods.noisy_classifier import NoisyClassifier
from soda_jax.report import exhibit


def config_of(place="", **changes):
    config = recipe.get_config(place)
    with config.unlocked():
        config.update_from_flattened_dict(changes)
    return config


def method_of(config):
    return methods.method(config, build.batch_spec(config))


def block(test, levels=(1, 51, 101)):
    return {
        "levels": list(levels),
        "sigma": [0.01, 0.2, 0.5],
        "test": test,
        "labels": {"label": {"test": test, "test_ci95": [[0, 1]] * 3}},
        "sizes": {"train": 600, "test": 1000},
        "images": 9000,
    }


FOUND = {"ddae": block([0.9, 0.8, 0.4]), "wrn": block([0.95, 0.7, 0.6])}


@pytest.mark.parametrize(("count", "levels"), [(1000, [*range(1, 952, 50)]), (18, [*range(1, 19)]), (1, [1])])
def test_levels_are_twenty_or_all(count, levels):
    assert noisy_classifier.levels_of(count) == levels


def test_the_config_of_a_folder_is_that_of_its_run(tmp_path):
    """Networks, data and diffusion; without a folder those of ddae_fashion_mnist.py."""
    usual = recipe.get_config()
    record = {"config": runs.plain(recipe.ddae_fashion_mnist.get_config())}
    record["config"]["model"]["channels"] = 24
    record["config"]["ddae"]["tap"] = "out_3"
    record["data_info"] = {"sizes": {"train": 77}, "labels": {"a": 4, "b": 9}}
    (tmp_path / "config.json").write_text(json.dumps(record))
    with pytest.raises(ValueError, match="has no checkpoint yet"):
        recipe.get_config(str(tmp_path))
    later, named, wide = (recipe.get_config(f"{tmp_path}{more}") for more in ("@300", "@20", "@20,wrn"))
    assert (later.noisy_classifier.step, named.noisy_classifier.step) == (300, 20)
    assert named.noisy_classifier.workdir == str(tmp_path)
    assert (named.model.channels, named.ddae.tap, named.supervised.classes) == (24, "out_3", (4, 9))
    assert (named.noisy_classifier.backbone, wide.noisy_classifier.backbone) == ("ddae", "wrn")
    assert (named.train.images, wide.train.images, wide.optimizer.hold_images) == (15 * 77, 200 * 77, 77)
    assert usual.model.channels != 24 and usual.noisy_classifier.workdir == ""


def test_views_are_whole_images_and_their_mirror_images():
    views = build.views(recipe.get_config())
    assert (views.crop_prob, views.crop_scale, views.flip_prob, views.randaugment_prob) == (
        1.0,
        (1.0, 1.0),
        0.5,
        0.0,
    )
    assert views.labels and views.pair == "augment"


def test_the_method_reads_the_net_or_is_one_of_its_own():
    head, wide = (method_of(config_of(place)) for place in ("", ",wrn"))
    assert isinstance(head, NoisyClassifier) and head.net is None and head.classes == (10,)
    assert (wide.net.depth, wide.net.width, wide.net.classes, wide.shift) == (28, 10, 10, 4)
    assert head.ddae == wide.ddae
    small = method_of(config_of(",wrn", **{"noisy_classifier.depth": 16, "noisy_classifier.width": 2}))
    assert (small.net.depth, small.net.width) == (16, 2)


def test_noise_is_that_of_the_runs_framework():
    edm = {"diffusion.framework": "edm", "diffusion.schedule": "edm", "diffusion.steps": 18, "ddae.level": 4}
    method = method_of(config_of(**edm))
    assert isinstance(method.ddae.framework, EDM) and method.ddae.levels == 18
    assert method_of(config_of()).ddae.levels == 1000


def test_the_optimiser_sees_the_head_alone():
    """The frozen net has no moments, and no average."""
    config = config_of()
    state = jax.eval_shape(initialiser(config, method_of(config), build.batch_spec(config)))
    assert state.params.keys() == {"head"} and state.ema_params.keys() == {"head"}
    assert state.ema_batch_stats == {} and state.batch_stats[FROZEN].keys() == {"ddae"}
    names = {
        path[-1].key for path, _ in jax.tree.leaves_with_path(state.opt_state) if hasattr(path[-1], "key")
    }
    assert names == {"kernel", "bias"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"noisy_classifier.backbone": "vit"}, r"noisy_classifier\.backbone='vit' is unknown"),
        ({"noisy_classifier.shift": -2}, r"noisy_classifier\.shift must be 0 or more"),
        ({"ddae.level": 0}, r"ddae\.level must be 1 to"),
    ],
)
def test_what_is_out_of_range_is_told_by_key(changes, words):
    with pytest.raises(ValueError, match=words):
        method_of(config_of(**changes))


def test_what_is_said_is_a_row_a_level():
    lines = noisy_classifier.text(FOUND).splitlines()
    assert lines[0] == "a head on the DDAE: 9,000 images seen; accuracy of 1,000 test images, in %"
    assert lines[1].split() == ["level", "1", "sigma", "0.0100", "90.0"]
    assert len(lines) == 8 and lines[7].split()[-1] == "60.0"


def test_the_page_has_a_curve_a_backbone(tmp_path):
    noisy_classifier.leave(
        tmp_path / "noisy_classifier" / "4", FOUND, "python -m experiments.noisy_classifier"
    )
    (found,) = exhibit.find(tmp_path)
    (curves,) = found.exhibit.curves
    assert curves.series["a head on the DDAE"] == [[1, 51, 101], [90.0, 80.0, 40.0]]
    assert curves.series["a wide ResNet from scratch"] == [[1, 51, 101], [95.0, 70.0, 60.0]]
    assert list(found.exhibit.tables[0].rows[1]) == [
        "a wide ResNet from scratch",
        "9,000",
        "95.0%",
        "70.0%",
        "60.0%",
    ]
    assert "python -m experiments.noisy_classifier" in exhibit.render(found)


def test_flags_that_are_none_are_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        noisy_classifier.main([f"--workdir={tmp_path}", "--backbnoe=wrn"])
    assert "unexpected arguments: --backbnoe=wrn" in capsys.readouterr().err
    assert noisy_classifier.main([f"--workdir={tmp_path}"]) == 1
    assert "found no config.json there" in capsys.readouterr().err
