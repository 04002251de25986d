"""Lines and the bar."""

import io
import threading
import time

import pytest

from soda_jax.training.progress import Progress, clock, elapsed, line

RECORD = {"step": 12, "images": 1200, "loss": 0.12345, "images_per_second": 50.0, "data_wait": 0.031}


class Terminal(io.StringIO):
    """A stream that says that it is a terminal."""

    def isatty(self):
        return True


def test_a_log_file_gets_plain_lines():
    stream = io.StringIO()
    with Progress(4800, stream=stream) as progress:
        progress.advance(1200)
        progress.report(RECORD)
        progress.say("a word")
    assert stream.getvalue() == line(RECORD, 4800) + "\na word\n"
    assert "\r" not in stream.getvalue()


def test_a_line_says_how_fast_and_how_long():
    assert line(RECORD, 4800) == (
        "step 12  images 1,200/4,800  loss 0.1235  50.0 images/s  data wait 3%  1:12 left"
    )
    assert line(RECORD | {"images_per_second": 0.0}, 4800).endswith("?")


@pytest.mark.parametrize(
    ("seconds", "said"), [(30.4, "0:30 left"), (100.0, "1:12 left"), (-1.0, "0:00 left")]
)
def test_the_time_left_knows_of_its_limit(seconds, said):
    log, terminal = io.StringIO(), Terminal()
    for stream in (log, terminal):
        with Progress(4800, left=lambda: seconds, stream=stream) as progress:
            progress.report(RECORD)
    assert log.getvalue().endswith(f"{said}\n")
    assert f"ends in {clock(seconds)} at most" in terminal.getvalue()


@pytest.mark.parametrize(("share", "warned"), [(0.01, False), (0.05, True)])
def test_what_a_save_costs_is_shown_and_too_much_is_said_to_be(share, warned):
    stream = io.StringIO()
    with Progress(4800, stream=stream) as progress:
        progress.report(RECORD | {"save_seconds": 0.5, "save_share": share})
    assert f"save 0.50 s ({share:.1%})  1:12 left" in stream.getvalue()
    assert ("raise checkpoint.every_images" in stream.getvalue()) == warned


def test_a_terminal_gets_a_bar_that_starts_where_the_run_goes_on():
    stream = Terminal()
    with Progress(4800, 1200, stream=stream) as progress:
        progress.advance(1200)
        progress.report(RECORD)
        progress.say("a word")
    shown = stream.getvalue()
    assert "25%" in shown and "50%" in shown and "loss 0.1235, data wait 3%" in shown
    assert "a word\n" in shown and "images/s" in shown and "at most" not in shown


@pytest.mark.parametrize("stream", [io.StringIO(), Terminal()])
def test_other_processes_are_silent(stream):
    with Progress(100, stream=stream, main=False) as progress:
        progress.advance(50)
        progress.report(RECORD)
        progress.say("a word")
    assert stream.getvalue() == ""


@pytest.mark.parametrize(
    ("seconds", "text"), [(-3, "0:00"), (59.6, "1:00"), (754, "12:34"), (3600 * 26 + 62, "26:01:02")]
)
def test_clock(seconds, text):
    assert clock(seconds) == text


def test_silent_work_says_how_long_it_has_taken_and_stops_with_it(capsys):
    said, threads = "", threading.active_count()
    with pytest.raises(KeyError), elapsed("compiling", every=0.01):
        while said.count("\n") < 2:  # it hangs here if nothing is said
            said += capsys.readouterr().out
            time.sleep(0.01)
        raise KeyError
    assert said.splitlines()[0] == "compiling: 0:00 so far"
    assert threading.active_count() == threads
