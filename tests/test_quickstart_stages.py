"""The quickstart composes the public mains: the right commands in the right order, each only while needed."""

import json
import signal
import subprocess
import sys
import time

import pytest

from experiments import quickstart
from experiments.configs import quickstart as recipe
from experiments.quickstart import Stage, Stopped, execute, run_all, stages

BATCH = recipe.get_config().train.batch


def finish(workdir, *names):
    """What the mains leave behind."""
    for name in names:
        path = workdir / name
        path.mkdir(parents=True)
        (path / ("manifest.json" if path.parent.name == "checkpoints" else "results.json")).write_text("{}")


def start_nothing(todo, status=0, effect=lambda command: None):
    """Runs the stages with a stand-in for starting a process; returns the mains that were started."""
    started = []

    def start(command):
        started.append(command[0])
        effect(command)
        return status

    run_all(todo, start)
    return started


def test_the_commands_are_the_public_mains_in_order(tmp_path):
    commands = [quickstart.command_line(stage) for stage in stages(tmp_path / "a b", 4)]
    assert [c.split()[2] for c in commands] == [
        "data.prepare",
        "experiments.train",
        "experiments.probe",
        "experiments.sample",
        "experiments.report",
    ]
    assert all(f"'--workdir={tmp_path}/a b'" in c for c in commands[1:])
    assert f"--config={quickstart.CONFIG}" in commands[1] and "data" not in commands[1].replace("data.", "")


def test_the_data_folder_reaches_those_that_take_it(tmp_path):
    prepare, train, *others = stages(tmp_path, 1, data_dir="/d")
    assert "--data_dir=/d" in prepare.command and "--config.data.dir=/d" in train.command
    assert all("/d" not in stage.command for stage in others)


@pytest.mark.parametrize("minutes", [0.5, 2, 4])
def test_minutes_scale_the_images_trained_on(tmp_path, minutes):
    train = stages(tmp_path, minutes)[1]
    assert f"--config.train.images={round(minutes * recipe.IMAGES_PER_MINUTE)}" in train.command


def test_each_stage_says_its_number_and_its_command(tmp_path, capsys):
    todo = [Stage(name="one", command=("a", "--x=1 2")), Stage(name="two", command=("b",))]
    assert start_nothing(todo) == ["a", "b"]
    assert capsys.readouterr().out == "\n[1/2] one\n$ python -m a '--x=1 2'\n\n[2/2] two\n$ python -m b\n"


def test_what_is_done_is_found_and_said_with_its_command(tmp_path, capsys):
    last = -(-round(recipe.IMAGES_PER_MINUTE) // BATCH)
    finish(tmp_path, f"checkpoints/{last}")
    assert "experiments.train" not in start_nothing(stages(tmp_path, 1))
    out = capsys.readouterr().out
    assert out.count("found done:") == 1 and "$ python -m experiments.train" in out


def test_more_minutes_go_on_and_the_new_checkpoint_is_probed(tmp_path):
    last = -(-round(recipe.IMAGES_PER_MINUTE) // BATCH)
    finish(tmp_path, f"checkpoints/{last}", f"probe/{last}")

    def effect(command):
        if command[0] == "experiments.train":
            finish(tmp_path, f"checkpoints/{2 * last}")
        elif command[0] == "experiments.probe":
            finish(tmp_path, f"probe/{2 * last}")

    started = start_nothing(stages(tmp_path, 2), effect=effect)
    assert {"experiments.train", "experiments.probe"} <= set(started)


def time_is_up(workdir, step, minutes):
    """What a training leaves that its minutes ended."""
    finish(workdir, f"checkpoints/{step}")
    record = {"step": step, "images": step * BATCH, "minutes": minutes}
    (workdir / "time_is_up.json").write_text(json.dumps(record))


def test_a_machine_that_is_slower_trains_as_long_as_there_is_time_and_goes_on(tmp_path, capsys):
    limit = 2 * quickstart.PATIENCE
    assert f"--config.train.minutes={limit:g}" in stages(tmp_path, 2)[1].command
    started = start_nothing(
        stages(tmp_path, 2), effect=lambda c: time_is_up(tmp_path, 7, limit) if "train" in c[0] else None
    )
    assert started[1:3] == ["experiments.train", "experiments.probe"]
    assert "experiments.train" not in start_nothing(stages(tmp_path, 2))
    assert f"{7 * BATCH:,} of {round(2 * recipe.IMAGES_PER_MINUTE):,} images" in capsys.readouterr().out


@pytest.mark.parametrize(("minutes", "newer"), [(1.0, ()), (2.0, ("checkpoints/9",))])
def test_less_time_or_an_older_checkpoint_do_not_end_it(tmp_path, minutes, newer):
    time_is_up(tmp_path, 7, minutes * quickstart.PATIENCE)
    finish(tmp_path, *newer)
    assert stages(tmp_path, 2)[1].found() == ""


def test_a_failing_stage_stops_the_rest_and_its_status_is_told():
    todo = [Stage(name="one", command=("a",)), Stage(name="two", command=("b",))]
    with pytest.raises(Stopped, match=r"\[1/2\] one failed with exit status 3") as stop:
        start_nothing(todo, status=3)
    assert stop.value.status == 3


def test_training_that_was_stopped_early_is_not_taken_for_whole(tmp_path):
    with pytest.raises(Stopped, match=r"\[2/5\] train ended before it was done") as stop:
        start_nothing(
            stages(tmp_path, 1),
            effect=lambda _: (tmp_path / "checkpoints/1").mkdir(parents=True, exist_ok=True),
        )
    assert stop.value.status == 1


@pytest.mark.parametrize("name", ["3.orbax-checkpoint-tmp", "x", "3"])
def test_half_a_checkpoint_is_none(tmp_path, name):
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
    assert quickstart.newest(tmp_path) == -1


def test_the_status_of_a_process_comes_back(tmp_path):
    assert execute(["timeit", "-n1", "-r1", "pass"]) == 0
    assert execute(["timeit", "--nonsense"]) == 2


MODULE = """
import signal, sys, time, pathlib
def end(number, frame):
    pathlib.Path(sys.argv[1] + ".saved").write_text(str(number)); sys.exit(0)
signal.signal(int(sys.argv[2]), end)
pathlib.Path(sys.argv[1]).write_text("up")
time.sleep(60)
"""
CALLER = """
import sys
from experiments.quickstart import Stopped, execute
try:
    execute(["sleeper", *sys.argv[1:]])
except Stopped as stop:
    sys.exit(stop.status)
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_reaches_the_stage_which_may_save_and_end(tmp_path, number):
    (tmp_path / "sleeper.py").write_text(MODULE)
    up = tmp_path / "up"
    environment = {"PYTHONPATH": f"{tmp_path}:{quickstart.Path(__file__).parent.parent}"}
    caller = [sys.executable, "-c", CALLER, str(up), str(int(number))]
    with subprocess.Popen(caller, env=environment) as process:
        deadline = time.monotonic() + 60
        while not up.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
        process.send_signal(number)
        assert process.wait(60) == 128 + number
    assert (tmp_path / "up.saved").read_text() == str(int(number))


@pytest.mark.parametrize("given", [{}, {"GLIBC_TUNABLES": "glibc.malloc.perturb=0"}])
def test_stages_ask_for_large_pages_unless_the_user_says_otherwise(tmp_path, monkeypatch, given):
    (tmp_path / "teller.py").write_text(
        "import os, sys, pathlib\npathlib.Path(sys.argv[1]).write_text(os.environ['GLIBC_TUNABLES'])\n"
    )
    monkeypatch.delenv("GLIBC_TUNABLES", raising=False)
    for name, value in {"PYTHONPATH": str(tmp_path), **given}.items():
        monkeypatch.setenv(name, value)
    assert execute(["teller", str(tmp_path / "told")]) == 0
    assert (tmp_path / "told").read_text() == given.get("GLIBC_TUNABLES", quickstart.LARGE_PAGES)


@pytest.mark.parametrize("minutes", ["0", "-1", "inf", "x"])
def test_minutes_must_be_a_number_above_zero(minutes, capsys):
    with pytest.raises(SystemExit) as stop:
        quickstart.main([f"--minutes={minutes}"])
    assert stop.value.code == 2 and "--minutes" in capsys.readouterr().err


def test_the_last_line_says_what_to_open(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(quickstart, "stages", lambda *_: [])
    assert quickstart.main([f"--workdir={tmp_path}"]) == 0
    assert capsys.readouterr().out.splitlines()[-1].endswith(f"Open {tmp_path}/report.html in a browser.")


def test_the_status_of_the_stage_that_failed_is_the_quickstart_s(monkeypatch, capsys):
    monkeypatch.setattr(
        quickstart, "stages", lambda *_: [Stage(name="one", command=("timeit", "--nonsense"))]
    )
    assert quickstart.main([]) == 2
    assert "[1/1] one failed with exit status 2" in capsys.readouterr().err


@pytest.mark.parametrize(("seconds", "words"), [(3, "0:03 min"), (463.4, "7:43 min")])
def test_the_clock(seconds, words):
    assert quickstart.clock(seconds) == words
