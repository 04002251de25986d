"""The table of compiled slices, from files that are there."""

import json

from experiments.benchmarks import pod_table

FITS = {
    "mesh": {"data": 2, "fsdp": 8},
    "hbm_peak_bytes": 8 * 2**30,
    "hbm_bytes": 16 * 2**30,
    "fits": True,
    "hlo_flops": 96.0,
    "model_flops": 100.0,
    "collective_bytes": 105,
    "collective_bytes_least": 100,
    "roofline": {"limit": "compute", "mfu": 0.876},
    "compile_seconds": 601.4,
}
TOO_LARGE = {**FITS, "fits": False, "hbm_peak_bytes": 20 * 2**30, "roofline": None, "hlo_flops": None}


def test_each_target_is_compiled_for_each_slice_with_so_many_images_a_chip(tmp_path):
    rows = pod_table.rows(images=16)
    assert [(row.target, row.topology) for row in rows[:3]] == [
        ("64", "v5e:4x4"),
        ("128", "v5e:4x4"),
        ("64", "v5e:16x16"),
    ]
    command = rows[2].command(tmp_path / "x.json")
    assert "--config=experiments/configs/soda_imagenet.py:64" in command
    assert "--config.train.batch=4096" in command and "--topology=v5e:16x16" in command
    assert len({row.name for row in rows}) == len(rows) == 6


def test_a_row_says_what_was_found_and_a_dash_where_nothing_was(tmp_path):
    small, large = pod_table.rows(16)[:2]
    (tmp_path / f"{small.name}.json").write_text(json.dumps(FITS))
    (tmp_path / f"{large.name}.json").write_text(json.dumps(TOO_LARGE))
    assert list(pod_table.lines(tmp_path, images=16)) == [
        "| 64 px | v5e:4x4 | 2 x 8 | 8.00 of 16 GiB | 0.960 | 1.050 | compute, MFU <= 88% | 601 s |",
        "| 128 px | v5e:4x4 | 2 x 8 | 20.00 of 16 GiB, does not fit | - | - | - | 601 s |",
    ]
    assert list(pod_table.lines(tmp_path, images=8)) == []


def test_what_is_there_already_is_not_compiled_again(tmp_path, capsys):
    for row in pod_table.rows(16):
        (tmp_path / f"{row.name}.json").write_text(json.dumps(FITS))
    assert pod_table.main([f"--out={tmp_path}"]) == 0
    assert capsys.readouterr().out.count("601 s") == 6
