"""Probe, sampling and preparation, killed twice and started again: the same results to the last digit."""

import hashlib
import shutil
import signal

import cv2
import pytest

from data.sources import open_data_set
from tests import bundles, launched, prepared_data, small_run


def kill_twice_then_finish(arguments, signs):
    """SIGKILL as soon as each sign is printed, then a run that must succeed."""
    for sign in signs:
        process = launched.start_alone(arguments)
        launched.wait_for(process, sign)
        process.send_signal(signal.SIGKILL)
        assert launched.finished(process)[0] == -signal.SIGKILL
    finish(arguments)


def finish(arguments):
    """A run that must succeed."""
    status, output = launched.finished(launched.start_alone(arguments))
    assert status == 0, output


def hashes(folder):
    """name -> SHA-256 of every file."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


@pytest.mark.parametrize(
    ("main", "signs", "left"),
    [
        ("experiments.probe", ("probing step", "baselines:"), "probe"),
        ("experiments.sample", ("drawing", "drawing"), "samples"),
    ],
    ids=["probe", "sample"],
)
def test_a_job_on_a_run(main, signs, left, tmp_path):
    whole = small_run.write(tmp_path / "whole")
    killed = shutil.copytree(whole, tmp_path / "killed")
    finish(["-m", main, f"--workdir={whole}"])
    kill_twice_then_finish(["-m", main, f"--workdir={killed}"], signs)
    assert hashes(killed / left) == hashes(whole / left) and hashes(whole / left)


def test_a_preparation(tmp_path):
    for number in range(400):
        path = tmp_path / "images" / "train" / f"class{number % 2}" / f"{number}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), prepared_data.noise(number % 200, 32, 32, 3))

    def prepare(place):
        source = tmp_path / "images"
        return ["-m", "data.prepare", "folder", f"--source={source}", f"--data_dir={tmp_path / place}"]

    finish(prepare("whole"))
    kill_twice_then_finish(prepare("killed"), ["reading headers", "reading headers"])
    killed, whole = (
        open_data_set("folder", tmp_path / place).split("train") for place in ("killed", "whole")
    )
    assert len(killed) == len(whole) == 400
    assert all(killed[i] == whole[i] for i in range(400))
    assert [path.name for path in (tmp_path / "killed").iterdir()] == ["folder"]


def test_an_embedding(tmp_path):
    for number in range(400):
        path = tmp_path / "images" / f"{number:03d}.png"
        path.parent.mkdir(exist_ok=True)
        cv2.imwrite(str(path), prepared_data.noise(number % 200, 16, 16, 3))
    bundle = bundles.written("resnet18")

    def embed(name):
        where = [f"--source={tmp_path / 'images'}", f"--out={tmp_path / name}", "--batch=4"]
        return ["-m", "experiments.embed", f"--bundle={bundle}", *where]

    finish(embed("whole.parquet"))
    kill_twice_then_finish(embed("killed.parquet"), ["64/400 images", "192/400 images"])
    assert (tmp_path / "killed.parquet").read_bytes() == (tmp_path / "whole.parquet").read_bytes()


@pytest.mark.parametrize(
    ("main", "sign"), [("experiments.probe", "probing step"), ("experiments.sample", "drawing")]
)
def test_sigterm_ends_them_with_a_word(main, sign, tmp_path):
    run = small_run.write(tmp_path / "run")
    process = launched.start_alone(["-m", main, f"--workdir={run}"])
    launched.wait_for(process, sign)
    process.send_signal(signal.SIGTERM)
    status, output = launched.finished(process)
    assert status == 128 + signal.SIGTERM and f"{main}: stopped; the same command" in output, output
    assert not list((run / "samples").glob("4_*.png")) and not (run / "probe" / "4").exists()
