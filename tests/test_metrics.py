"""metrics.jsonl and TensorBoard."""

import json
import subprocess
import sys

import pytest

from soda_jax.training.metrics import MetricWriter, finite, keep_until, read_metrics


def lines(workdir):
    return [json.loads(line) for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_records_are_on_disk_at_once_one_a_line(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write({"step": 1, "loss": 0.5})
        assert lines(tmp_path) == [{"step": 1, "loss": 0.5}]
        writer.write({"step": 2, "loss": 0.25, "note": "text"})
    assert [record["step"] for record in read_metrics(tmp_path / "metrics.jsonl")] == [1, 2]


def test_scalars_reach_tensorboard(tmp_path):
    with MetricWriter(tmp_path) as writer:
        writer.write({"step": 7, "a_rather_special_name": 0.5, "text": "no_scalar"})
    (file,) = (tmp_path / "tensorboard").iterdir()
    content = file.read_bytes()
    assert b"a_rather_special_name" in content and b"no_scalar" not in content


def test_only_the_main_process_writes(tmp_path):
    with MetricWriter(tmp_path, main=False) as writer:
        writer.write({"step": 1})
    assert list(tmp_path.iterdir()) == []


def test_what_lies_beyond_the_step_to_go_on_from_is_dropped(tmp_path):
    with MetricWriter(tmp_path) as writer:
        for step in (1, 2, 3):
            writer.write({"step": step, "loss": float(step)})
    with MetricWriter(tmp_path, after_step=2) as writer:
        writer.write({"step": 3, "loss": 0.0})
    assert lines(tmp_path) == [{"step": 1, "loss": 1.0}, {"step": 2, "loss": 2.0}, {"step": 3, "loss": 0.0}]


def test_a_line_cut_short_by_a_kill_is_left_out(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text('{"step": 1}\n{"step": 2, "lo')
    assert read_metrics(path) == [{"step": 1}]
    keep_until(path, 5)
    assert path.read_text() == '{"step": 1}\n'
    assert read_metrics(tmp_path / "none.jsonl") == []


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_json_does_not_know_becomes_null(value):
    assert finite({"step": 1, "loss": value, "text": "a"}) == {"step": 1, "loss": None, "text": "a"}


def test_opening_a_board_does_not_load_pytorch(tmp_path):
    """It takes seconds, and hiding it must not keep others from loading it afterwards."""
    code = (
        "import pathlib, sys; from soda_jax.training.metrics import open_board; "
        f"open_board(pathlib.Path({str(tmp_path)!r}), 0).close(); assert 'torch' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
