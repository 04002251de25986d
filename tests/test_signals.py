"""Signals as requests."""

import contextlib
import os
import signal
import subprocess
import sys

import pytest

from soda_jax.training.signals import StopRequest, Terminated, sigterm_raises, status_of


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_is_noted_and_nothing_else_happens(number, capfd):
    with StopRequest() as stop:
        assert not stop()
        os.kill(os.getpid(), number)
        assert stop() and stop.requested == number.name
    assert number.name in capfd.readouterr().err


def test_a_second_ctrl_c_gives_up_at_once():
    with StopRequest(), pytest.raises(KeyboardInterrupt):
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)


def run(code):
    """Exit status and output of code in a process of its own."""
    words = "import os, signal; from soda_jax.training.signals import *; me = os.getpid();"
    done = subprocess.run([sys.executable, "-c", words + code], capture_output=True, text=True, timeout=60)
    return done.returncode, done.stdout


def test_a_second_sigterm_ends_at_once():
    code = (
        "s = StopRequest(); s.__enter__(); os.kill(me, 15); print(s()); os.kill(me, 15); print('still here')"
    )
    assert run(f"import sys; sys.stdout.reconfigure(line_buffering=True); {code}") == (
        -signal.SIGTERM,
        "True\n",
    )


def test_signals_that_are_not_ours_are_left_alone():
    before = signal.getsignal(signal.SIGTERM)
    with StopRequest((signal.SIGINT,)) as stop:
        assert signal.getsignal(signal.SIGTERM) == before
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.requested == "SIGINT"


def test_other_jobs_are_interrupted_by_sigterm_and_say_which_signal_it_was():
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(Terminated) as ended, sigterm_raises():
        os.kill(os.getpid(), signal.SIGTERM)
    assert status_of(ended.value) == 143 and status_of(KeyboardInterrupt()) == 130
    assert signal.getsignal(signal.SIGTERM) == before


def test_a_second_sigterm_ends_those_too():
    code = """
with sigterm_raises():
    try:
        os.kill(me, 15)
    except Terminated:
        print("tidying up", flush=True)
        os.kill(me, 15)
        print("still here", flush=True)
"""
    assert run("\n" + code) == (-signal.SIGTERM, "tidying up\n")


def test_the_handlers_of_before_come_back():
    before = signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)
    with StopRequest():
        assert signal.getsignal(signal.SIGTERM) != before[0]
    assert (signal.getsignal(signal.SIGTERM), signal.getsignal(signal.SIGINT)) == before


def test_a_sigterm_that_was_swallowed_is_raised_at_the_end():
    reached = []
    with pytest.raises(Terminated), sigterm_raises():
        with contextlib.suppress(Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
            signal.sigpending()  # a place where Python looks for signals
        reached.append(True)
    assert reached
