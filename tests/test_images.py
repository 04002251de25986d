"""--mode=images of a net without latent: numbered files, each of its own noise, and what is refused."""

import io
import json

import numpy as np
import pytest
from PIL import Image

from experiments import sample
from tests import small_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    """A DDAE that was not trained."""
    return small_run.write_ddae(tmp_path_factory.mktemp("images") / "run", steps=3)


def files(workdir, seed=0):
    return sorted((workdir / "images" / f"4_{seed}").glob("*.png"))


def test_more_can_be_asked_for_and_what_is_there_stays(workdir, capsys):
    assert sample.main([f"--workdir={workdir}", "--mode=images", "--images=5"]) == 0
    first = {path.name: path.read_bytes() for path in files(workdir)}
    assert list(first) == [f"{number:05d}.png" for number in range(5)]
    assert decoded(first["00000.png"]).shape == (16, 16, 3) and len(set(first.values())) == 5
    files(workdir)[2].unlink()
    capsys.readouterr()
    assert sample.main([f"--workdir={workdir}", "--mode=images", "--images=9"]) == 0
    assert "drawing 5 images" in capsys.readouterr().out
    again = {path.name: path.read_bytes() for path in files(workdir)}
    assert len(again) == 9
    for name, image in first.items():  # to rounding: other programs for other numbers at once
        assert np.abs(decoded(again[name]) - decoded(image)).max() <= 1
    assert (workdir / "samples" / "4_images.png").is_file()


def decoded(data):
    """PNG bytes as numbers."""
    with Image.open(io.BytesIO(data)) as image:
        return np.asarray(image, int)


def test_another_seed_draws_others(workdir):
    for seed in (1, 2):
        assert sample.main([f"--workdir={workdir}", "--mode=images", "--images=2", f"--seed={seed}"]) == 0
    assert files(workdir, 1)[0].read_bytes() != files(workdir, 2)[0].read_bytes()


def test_images_of_something_else_are_not_mixed_in(workdir, capsys):
    assert sample.main([f"--workdir={workdir}", "--mode=images", "--images=1", "--seed=7"]) == 0
    path = workdir / "images" / "4_7" / "made_from.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "weights": "0"}))
    assert sample.main([f"--workdir={workdir}", "--mode=images", "--images=2", "--seed=7"]) == 1
    assert "images of other weights or another sampler" in capsys.readouterr().err
    assert len(files(workdir, 7)) == 1


def test_each_method_has_its_own_mode(workdir, tmp_path, capsys):
    assert sample.main([f"--workdir={workdir}"]) == 1
    assert "--mode=images draws from nothing" in capsys.readouterr().err
    soda = small_run.write(tmp_path / "soda", steps=(4,))
    assert sample.main([f"--workdir={soda}", "--mode=images"]) == 1
    assert "SODA draws from z" in capsys.readouterr().err
    assert sample.main([f"--workdir={workdir}", "--mode=images", "--images=0"]) == 1
    assert "--images must be 1 or more" in capsys.readouterr().err
