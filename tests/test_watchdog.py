"""The watchdog: silent while things move, and clear about who hangs when they do not."""

import json
import signal
import subprocess
import sys
import threading
import time

import pytest

from soda_jax.parallel.watchdog import PHASES, STATUS, Note, Watchdog, verdict

SECONDS = 1.0 / 60  # minutes


class Ended:
    """Notes how the process would have been ended."""

    def __init__(self):
        self.status, self.said, self.event = None, [], threading.Event()

    def __call__(self, status):
        self.status = status
        self.event.set()


def watchdog(folder, ended, process=0, processes=2, minutes=SECONDS):
    return Watchdog(
        folder, minutes=minutes, process=process, processes=processes, say=ended.said.append, end=ended
    )


def test_silence_ends_the_process_with_the_stacks(tmp_path, capfd):
    ended = Ended()
    with watchdog(tmp_path, ended) as watch:
        watch.note("batch", 7)
        assert ended.event.wait(20)
    assert ended.status == STATUS
    assert "process 0 hangs: phase 'batch' of step 7" in ended.said[-1]
    assert "no sign of process 1" in ended.said[-1]
    assert "test_silence_ends_the_process" in capfd.readouterr().err


def test_while_things_move_nothing_is_said(tmp_path):
    ended = Ended()
    with watchdog(tmp_path, ended) as watch:
        for step in range(40):
            watch.note(PHASES[step % len(PHASES)], step)
            time.sleep(0.05)  # all in all more than twice the time that it allows
    assert ended.status is None and ended.said == []


SUSPENDED = """
import sys
from soda_jax.parallel.watchdog import Watchdog

with Watchdog(sys.argv[1], minutes=float(sys.argv[2]), process=0, processes=1) as watch:
    watch.note("step", 1)
    print("up", flush=True)
    sys.stdin.readline()
"""


def test_time_in_which_the_process_was_suspended_does_not_count(tmp_path):
    program = [sys.executable, "-c", SUSPENDED, str(tmp_path / "notes"), str(SECONDS)]
    with subprocess.Popen(program, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout.readline() == "up\n"
        process.send_signal(signal.SIGSTOP)
        time.sleep(2.0)  # twice the time that it allows
        process.send_signal(signal.SIGCONT)
        time.sleep(0.3)  # a few looks
        process.communicate("\n")
    assert process.returncode == 0


def test_what_the_others_were_doing_is_read_from_their_notes(tmp_path):
    ended = Ended()
    note = {"step": 6, "phase": "step", "since": time.time() - 60}
    (tmp_path / "process_1.json").write_text(json.dumps(note))
    with watchdog(tmp_path, ended) as watch:
        watch.note("numbers", 7)
        assert ended.event.wait(20)
    assert "process 1 hangs: phase 'step' of step 6, 1.0 minutes" in ended.said[-1]
    assert "process 0 hangs" not in ended.said[-1] and "no sign" not in ended.said[-1]


def test_the_note_is_there_for_the_others_and_gone_at_the_end(tmp_path):
    with watchdog(tmp_path, Ended(), process=1, minutes=1):
        assert json.loads((tmp_path / "process_1.json").read_text())["phase"] == "start"
    assert list(tmp_path.iterdir()) == []


def test_off(tmp_path):
    with watchdog(tmp_path / "none", Ended(), minutes=0) as watch:
        watch.note("step", 1)
    assert not (tmp_path / "none").exists()
    with pytest.raises(ValueError, match="watchdog_minutes must be 0"):
        watchdog(tmp_path, Ended(), minutes=-1)


def test_a_folder_that_cannot_be_written_does_not_end_the_run(tmp_path):
    ended = Ended()
    (tmp_path / "file").write_text("")
    with watchdog(tmp_path / "file", ended, minutes=1):
        pass
    assert ended.status is None and "cannot write" in ended.said[0]


@pytest.mark.parametrize(
    ("notes", "named"),
    [
        ({0: (5, "numbers"), 1: (5, "batch"), 2: (5, "numbers")}, {1}),
        ({0: (5, "numbers"), 1: (6, "batch"), 2: (4, "save")}, {2}),
        ({0: (5, "save"), 1: (5, "save")}, {0, 1}),
        ({0: (3, "compile"), 1: (3, "restore")}, {0}),
    ],
)
def test_who_is_furthest_behind_hangs(notes, named):
    found = {i: Note(*place, since=0.0) for i, place in notes.items()}
    text = verdict(found, 0, len(found), now=90.0)
    assert {i for i in notes if f"process {i} hangs" in text} == named
    assert "has not got on for 1.5 minutes" in text
