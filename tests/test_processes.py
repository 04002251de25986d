"""Real processes on this machine train what one process trains, and stop and go on together."""

import json
import os
import re
import shutil
import signal
from pathlib import Path

import jax
import numpy as np
import pyarrow.parquet as pq
import pytest
from PIL import Image

from experiments import embed, pictures, probe, sample
from soda_jax.training import checkpoints
from tests import batch_dump, bundles, launched, prepared_data, small_job, small_run
from tests.steady import BATCH, SAVE, STEADY, STEPS, assert_close, command, final_state


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    """Folder of the job run by one process on 8 devices."""
    workdir = tmp_path_factory.mktemp("alone")
    assert small_job.run(workdir, STEADY).kind == "finished"
    return workdir


@pytest.fixture(scope="module")
def pair(tmp_path_factory):
    """Folder of the job run by two processes, and what they said."""
    workdir = tmp_path_factory.mktemp("pair")
    return workdir, launched.run(command(workdir), processes=2)


def test_two_processes_train_what_one_trains(alone, pair):
    workdir, output = pair
    assert "devices: 4 x cpu (cpu), mesh: data 4, fsdp 1, processes: 2" in output
    assert_close(workdir, alone)


@pytest.mark.rare
def test_from_4_processes_to_1(alone, tmp_path):
    """From 2 to 2 and to 1 others go."""
    output = launched.run(command(tmp_path, **{"train.images": BATCH * 7}), processes=4)
    assert "processes: 4" in output and f"finished: {BATCH * 7} images" in output
    said = []
    small_job.run(tmp_path, STEADY, say=said.append)
    assert any("going on from step 7" in text for text in said)
    assert_close(tmp_path, alone)
    assert [record["step"] for record in small_job.records(tmp_path)] == list(range(1, STEPS + 1))


def test_process_0_alone_writes_the_log(pair):
    workdir, output = pair
    assert re.findall(r"^\[(\d)\] .*finished: ", output, re.M) == ["0"]
    assert [record["step"] for record in small_job.records(workdir)] == list(range(1, STEPS + 1))
    assert not (workdir / "errors.log").exists()
    assert list((workdir / "processes").iterdir()) == []


@pytest.mark.parametrize("processes", [2, 4])
def test_the_global_batches_are_the_same_bit_for_bit(processes, tmp_path):
    prepared_data.single(1)
    data_dir = str(prepared_data.data_dir())
    launched.run(["-m", "tests.batch_dump", data_dir, str(tmp_path)], processes)
    rows = [np.load(tmp_path / f"rows_{i}.npz") for i in range(processes)]
    for name, whole in batch_dump.dump(batch_dump.job_of(data_dir, tmp_path)).items():
        np.testing.assert_array_equal(np.concatenate([part[name] for part in rows], axis=1), whole)


def test_sigterm_to_one_process_saves_in_all_and_the_same_command_goes_on(pair, tmp_path):
    run = launched.start(command(tmp_path), processes=2)
    launched.wait_for(run, "step 1 ")
    os.kill(launched.children(run)[1], signal.SIGTERM)
    status, output = launched.finished(run)
    assert status == 0, output
    assert "stopped by" in output and "saved" in output
    stopped = checkpoints.steps(tmp_path / "checkpoints")[-1]
    assert 1 <= stopped < STEPS
    assert f"going on from step {stopped}" in launched.run(command(tmp_path), processes=2)
    for x, y in zip(*map(jax.tree.leaves, (final_state(tmp_path), final_state(pair[0]))), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.rare
def test_one_process_killed_the_others_say_so_and_end_and_a_restart_goes_on(alone, tmp_path):
    run = launched.start([*command(tmp_path), "--heartbeat=10"], processes=2)
    launched.wait_for(run, f"step {SAVE + 1} ")
    os.kill(launched.children(run)[1], signal.SIGKILL)
    status, output = launched.finished(run)
    assert status == 128 + signal.SIGKILL
    told = [line for line in output.splitlines() if line.startswith("launch: ")]
    assert told == ["launch: process 1 was ended by SIGKILL; waiting for the others"], (
        "process 0 needed force"
    )
    # Whoever notices first says so: the broken connection, or JAX's service, which aborts the process.
    lost = "process 0: error: lost another process"
    assert lost in output or re.search(r"tasks are unhealthy.*\n\[0\] 1\n", output), output
    assert (lost in output) == (tmp_path / "errors.log").exists()
    launched.run(command(tmp_path), processes=2)
    assert_close(tmp_path, alone)


def test_a_process_that_hangs_is_named(tmp_path):
    hasty = {"train.watchdog_minutes": 1.0, "train.images": 100_000}
    # JAX's own service would notice the silence too, after 100 seconds, and abort without a word about who hangs
    run = launched.start([*command(tmp_path, **hasty), "--heartbeat=600"], processes=2, grace=2)
    launched.wait_for(run, "step 2 ")
    os.kill(launched.children(run)[1], signal.SIGSTOP)
    status, output = launched.finished(run)
    assert status == 128 + signal.SIGKILL  # of the stopped one, by the launcher
    assert "launch: process 0 ended with status 70" in output
    assert re.search(r"watchdog: process 0 has not got on for 1\.\d minutes", output)
    assert re.search(r"process 1 hangs: phase '\w+' of step", output)
    assert "File " in output and "in train" in output  # the stacks


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """A run to probe and to draw from."""
    return small_run.write(tmp_path_factory.mktemp("model") / "run")


def test_two_processes_probe_what_one_probes(model, tmp_path):
    run = Path(shutil.copytree(model, tmp_path / "run"))
    output = launched.run(["-m", "experiments.probe", f"--workdir={run}"], processes=2)
    assert re.findall(r"^\[(\d)\] wrote ", output, re.M) == ["0"]
    alone = Path(shutil.copytree(model, tmp_path / "alone"))
    assert probe.main([f"--workdir={alone}"]) == 0
    found, expected = (json.loads((x / "probe/4/results.json").read_text()) for x in (run, alone))
    assert found["sizes"] == expected["sizes"] and found["made_from"] == expected["made_from"]
    for label, rows in expected["labels"].items():
        for kind, scores in rows.items():
            for name, score in scores.items():
                assert found["labels"][label][kind][name] == pytest.approx(score, abs=1e-5), (
                    label,
                    kind,
                    name,
                )


@pytest.mark.rare
def test_two_processes_draw_what_one_draws(model, tmp_path):
    run = Path(shutil.copytree(model, tmp_path / "run"))
    output = launched.run(["-m", "experiments.sample", f"--workdir={run}", "--count=3"], processes=2)
    assert output.count("pictures: ") == 1
    alone = Path(shutil.copytree(model, tmp_path / "alone"))
    assert sample.main([f"--workdir={alone}", "--count=3"]) == 0
    for kind in pictures.KINDS:
        found, expected = (np.asarray(Image.open(x / f"samples/4_{kind}.png"), int) for x in (run, alone))
        assert np.abs(found - expected).max() <= 1, kind  # of 255, by rounding


@pytest.mark.rare
def test_two_processes_embed_what_one_embeds(tmp_path):
    bundle, name = bundles.written("resnet18"), small_run.dataset()
    arguments = [f"--bundle={bundle}", f"--source=tfds:{name}", f"--data_dir={prepared_data.data_dir()}"]
    output = launched.run(
        ["-m", "experiments.embed", *arguments, f"--out={tmp_path / 'two.parquet'}", "--batch=4"], processes=2
    )
    assert output.count("wrote ") == 1
    assert embed.main([*arguments, f"--out={tmp_path / 'one.parquet'}", "--batch=4"]) == 0
    two, one = (pq.read_table(tmp_path / f"{count}.parquet") for count in ("two", "one"))
    assert two.column("id").equals(one.column("id")) and two.schema.equals(one.schema, check_metadata=True)
    for feature in ("z", "pooled"):
        found, expected = (np.stack(table.column(feature).to_numpy()) for table in (two, one))
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
