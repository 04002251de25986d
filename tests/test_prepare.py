"""`python -m data.prepare` as a user meets it: exit statuses, one-line errors, what a second run says."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from data import locations, prepare
from data.builders import fashion_mnist, views3d

ROOT = pathlib.Path(__file__).resolve().parent.parent


@pytest.fixture
def pictures(tmp_path):
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            folder = tmp_path / "pictures" / split / name
            folder.mkdir(parents=True)
            Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(folder / "x.png")
    return tmp_path / "pictures"


def run(capsys, *arguments: str) -> tuple[int, str, str]:
    status = prepare.main(arguments)
    return status, *capsys.readouterr()


def error_line(text: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith("data.prepare: ")]
    assert len(lines) == 1
    assert "Traceback" not in text
    return lines[0]


def test_a_folder_is_prepared_under_its_name_and_the_second_run_says_so(pictures, tmp_path, capsys):
    flags = ("folder", f"--source={pictures}", "--name=insects", f"--data_dir={tmp_path / 'out'}")
    status, out, _ = run(capsys, *flags)
    assert status == 0
    assert out.startswith("prepared insects (2 train, 2 test, label of 2) in ")
    folder = tmp_path / "out" / "insects" / "1.0.0"
    assert str(folder) in out
    written = {path: path.stat().st_mtime_ns for path in folder.iterdir()}
    assert run(capsys, *flags)[:2] == (0, f"already prepared: {folder}\n")
    assert {path: path.stat().st_mtime_ns for path in folder.iterdir()} == written


def test_the_default_name_is_folder(pictures, tmp_path, capsys):
    assert run(capsys, "folder", f"--source={pictures}", f"--data_dir={tmp_path}")[0] == 0
    assert (tmp_path / "folder" / "1.0.0" / "dataset_info.json").exists()


def test_flags_may_come_first_and_apart(pictures, tmp_path, capsys):
    assert run(capsys, "--data_dir", str(tmp_path), "--source", str(pictures), "folder")[0] == 0


def test_views3d_is_rendered_and_found_again(tmp_path, capsys, monkeypatch):
    tiny = views3d.recipe(views3d.Plan(train=3, test=2, views=2))
    monkeypatch.setattr(views3d, "recipe", lambda: tiny)
    status, out, err = run(capsys, "views3d", f"--data_dir={tmp_path}")
    assert status == 0
    assert "prepared views3d (3 train, 2 test" in out
    assert "shape of 8" in out
    assert "views3d train: 3 of 3 scenes" in err
    assert run(capsys, "views3d", f"--data_dir={tmp_path}")[1].startswith("already prepared: ")


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        (["folder"], "folder needs --source=DIR"),
        (["folder", "--source=/nowhere"], "/nowhere is not a folder: give --source=DIR"),
        (["fashion_mnist", "--source=/nowhere"], "no train-images-idx3-ubyte or"),
        (["fashion_mnist", "--name=x"], "--name=x is for `folder` and"),
        (["posed_folder"], "posed_folder needs --source=DIR, a folder of objects"),
        (["grouped_folder"], "grouped_folder needs --source=DIR, a folder of groups"),
        (["folder", "--source=/tmp", "--image_size=9"], "--image_size=9 is for `posed_folder` and"),
        (
            ["celebamask_hq"],
            "celebamask_hq needs --source=DIR, a folder of CelebA-HQ-img, CelebAMask-HQ-mask-anno",
        ),
        (["celebamask_hq", "--source=/tmp"], "CelebA-HQ-to-CelebA-mapping.txt cannot be read (No such file"),
        (["wflw"], "wflw needs --source=DIR, a folder of WFLW_images and WFLW_annotations"),
        (["wflw", "--source=/tmp", "--image_size=0"], "--image_size=0: expected a positive"),
        (["celebamask_hq", "--source=/nowhere"], "/nowhere is not a folder: give --source=DIR"),
        (["wflw", "--source=/tmp", "--background=black"], "--background=black is for `posed_f"),
        (["folder", "--source=/tmp", "--test_share=0.2"], "--test_share=0.2 is for `grouped_folder` and"),
        (["grouped_folder", "--source=/tmp", "--background=black"], "--background=black is for `posed_f"),
        (["posed_folder", "--source=/tmp", "--test_share=1"], "--test_share=1: expected a share"),
        (["posed_folder", "--source=/tmp", "--image_size=0"], "--image_size=0: expected a positive"),
        (["views3d", "--source=/tmp"], "--source is not for views3d"),
        (["folder", "--source=/tmp", "--name=views3d"], "--name=views3d: expected lower-case letters"),
        (["folder", "--source=/tmp", "--name=A b"], "--name=A b: expected lower-case letters"),
    ],
)
def test_wrong_flags_are_answered_in_one_line(flags, expected, tmp_path, capsys):
    status, out, err = run(capsys, *flags, f"--data_dir={tmp_path}")
    assert (status, out) == (1, "")
    assert expected in error_line(err)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("flags", [["cifar10"], [], ["views3d", "--wrong=1"], ["folder", "--sourc=x"]])
def test_a_mistyped_command_line_is_answered_in_one_line(flags, capsys):
    with pytest.raises(SystemExit) as caught:
        prepare.main(flags)
    assert caught.value.code == 2
    assert error_line(capsys.readouterr().err).endswith("; see --help")


def test_a_name_that_is_taken_is_refused(pictures, tmp_path, capsys):
    flags = ("folder", f"--data_dir={tmp_path / 'out'}")
    run(capsys, *flags, f"--source={pictures}")
    other = pictures.rename(tmp_path / "others")
    (other / "train" / "ant" / "y.png").write_bytes((other / "train" / "ant" / "x.png").read_bytes())
    status, _, err = run(capsys, *flags, f"--source={other}")
    assert status == 1
    assert "the name 'folder' is taken" in error_line(err)


def test_ctrl_c_is_answered_in_one_line_and_leaves_nothing(pictures, tmp_path, capsys, monkeypatch):
    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr("data.builders.images.read_encoded", interrupt)
    status, _, err = run(capsys, "folder", f"--source={pictures}", f"--data_dir={tmp_path / 'out'}")
    assert status == 130
    assert error_line(err) == "data.prepare: interrupted; nothing was kept"
    assert os.listdir(tmp_path / "out") == []


def test_fashion_mnist_looks_where_debian_puts_it(monkeypatch, tmp_path, capsys):
    monkeypatch.setattr(fashion_mnist, "DEFAULT_SOURCE", tmp_path / "debian")
    status, _, err = run(capsys, "fashion_mnist", f"--data_dir={tmp_path}")
    assert status == 1
    assert str(tmp_path / "debian") in error_line(err)


def test_as_a_program_it_needs_no_tensorflow_and_no_jax(pictures, tmp_path):
    code = (
        "import sys; from data.prepare import main; status = main(sys.argv[1:]); "
        "heavy = {'tensorflow', 'jax', 'torch'} & set(sys.modules); sys.exit(status or (3 if heavy else 0))"
    )
    flags = ["folder", f"--source={pictures}", f"--data_dir={tmp_path}"]
    assert subprocess.run([sys.executable, "-c", code, *flags], cwd=ROOT).returncode == 0


def test_as_a_module_its_errors_have_no_traceback(tmp_path):
    done = subprocess.run(
        [sys.executable, "-m", "data.prepare", "folder", f"--source={tmp_path / 'none'}"],
        cwd=ROOT,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert (
        done.stderr
        == f"data.prepare: {tmp_path / 'none'} is not a folder: give --source=DIR, a folder of images\n"
    )


def test_the_default_place_is_the_users_cache_unless_said_otherwise(monkeypatch, tmp_path):
    monkeypatch.delenv("SODA_JAX_DATA", raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    assert locations.resolve("") == locations.resolve(None) == tmp_path / ".cache" / "soda_jax" / "data"
    monkeypatch.setenv("SODA_JAX_DATA", "/somewhere")
    assert locations.resolve("") == pathlib.Path("/somewhere")
    assert locations.resolve("~/x") == tmp_path / "x"
