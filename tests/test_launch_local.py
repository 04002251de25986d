"""The local launcher: what it passes on, and how it ends."""

import os
import signal

import pytest

from experiments.launch.local import environment, parse, status
from tests import launched

WORDS = "import os,sys,time;i=int(os.environ['SODA_JAX_PROCESS']);print('hello', i, flush=True);"


def launch(tmp_path, code, processes=2, grace=60):
    (tmp_path / "told.py").write_text(WORDS + code)
    arguments = ["-m", "experiments.launch.local", f"--processes={processes}", f"--grace={grace}"]
    return launched.start_alone([*arguments, "-m", "told"], PYTHONPATH=str(tmp_path))


def test_each_process_is_told_where_it_stands():
    found = environment({"HOME": "/h", "JAX_PLATFORMS": "tpu"}, 4321, 3, 2, devices=5)
    assert found["HOME"] == "/h" and found["JAX_NUM_CPU_DEVICES"] == "5" and found["JAX_PLATFORMS"] == "cpu"
    assert [found[f"SODA_JAX_{name}"] for name in ("COORDINATOR", "PROCESSES", "PROCESS")] == [
        "127.0.0.1:4321",
        "3",
        "2",
    ]
    assert environment({"JAX_PLATFORMS": "tpu"}, 1, 1, 0, devices=0)["JAX_PLATFORMS"] == "tpu"


def test_what_follows_m_is_the_command():
    own, command = parse(["--processes=3", "--devices=4", "-m", "x.y", "--processes=9", "-m"])
    assert (own.processes, own.devices) == (3, 4)
    assert command[1:] == ["-m", "x.y", "--processes=9", "-m"]


@pytest.mark.parametrize("argv", [[], ["--processes=2"], ["-m"], ["--processes=0", "-m", "x"]])
def test_a_command_line_without_sense_ends_with_status_2(argv, capsys):
    with pytest.raises(SystemExit) as ended:
        parse(argv)
    assert ended.value.code == 2 and "experiments.launch.local" in capsys.readouterr().err


def test_lines_are_marked_and_all_well_is_status_0(tmp_path):
    code, output = launched.finished(launch(tmp_path, "", processes=3))
    assert code == 0
    assert sorted(output.splitlines()) == ["[0] hello 0", "[1] hello 1", "[2] hello 2"]


def test_the_status_is_the_worst(tmp_path):
    code, output = launched.finished(launch(tmp_path, "sys.exit([0, 3, 1][i])", processes=3))
    assert code == 3
    assert "launch: process 1 ended with status 3" in output or "launch: process 2 ended with" in output


def test_one_that_waits_for_ever_for_the_dead_is_ended(tmp_path):
    run = launch(tmp_path, "time.sleep(0 if i else 600); os.kill(os.getpid(), 11)", grace=1)
    code, output = launched.finished(run, timeout=60)
    assert "launch: process 1 was ended by SIGSEGV" in output and "process 0 did not end by itself" in output
    assert code == 128 + signal.SIGSEGV


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_all_of_them_as_sigterm(number, tmp_path):
    # many short sleeps: a signal that comes just before one long sleep would be heard only after it
    code = (
        "import signal; signal.signal(15, lambda *_: (print('got it', flush=True), sys.exit(7)));"
        "print('ready', flush=True); [time.sleep(0.05) for _ in range(12000)]"
    )
    run = launch(tmp_path, code)
    launched.wait_for(run, "ready")
    launched.wait_for(run, "ready")
    os.kill(run.pid, number)
    code, output = launched.finished(run, timeout=60)
    assert code == 7 and output.count("got it") == 2


def test_statuses_as_a_shell_gives_them():
    assert [status(code) for code in (0, 3, -9)] == [0, 3, 137]
