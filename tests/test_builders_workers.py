"""The parallel map and the progress report of long preparations."""

import io
import os

import pytest

from data.builders import progress, workers
from data.errors import DataError


def square(number: int) -> int:
    return number * number


def fail_on_five(number: int) -> int:
    if number == 5:
        raise DataError("five is bad")
    return number


def die_on_five(number: int) -> int:
    if number == 5:
        os._exit(9)
    return number


def threads_variable(_) -> str | None:
    return os.environ.get("OPENBLAS_NUM_THREADS")


@pytest.mark.parametrize("processes", [1, 2])
def test_results_come_in_order(processes):
    assert list(workers.ordered_map(square, range(50), processes=processes, chunk=3)) == [
        n * n for n in range(50)
    ]


@pytest.mark.parametrize("processes", [1, 2])
def test_an_error_arrives_after_the_results_before_it(processes):
    results = workers.ordered_map(fail_on_five, range(9), processes=processes, chunk=1)
    assert [next(results) for _ in range(5)] == [0, 1, 2, 3, 4]
    with pytest.raises(DataError, match="five is bad"):
        next(results)


def test_a_killed_worker_is_reported_in_one_line():
    with pytest.raises(DataError, match="a worker process was killed"):
        list(workers.ordered_map(die_on_five, range(9), processes=2, chunk=1))


def test_input_is_taken_only_as_needed():
    taken = []
    endless = (taken.append(n) or n for n in iter(int, 1))
    results = workers.ordered_map(square, endless, processes=2, chunk=2)
    for _ in range(6):
        next(results)
    results.close()
    assert len(taken) <= 6 + 2 * 2 * 3 + 2


def test_nothing_in_nothing_out():
    assert list(workers.ordered_map(square, [], processes=2)) == []


def test_workers_keep_to_one_core_and_the_parent_is_left_alone():
    before = dict(os.environ)
    assert list(workers.ordered_map(threads_variable, range(2), processes=2, chunk=1)) == ["1", "1"]
    assert dict(os.environ) == before


def test_core_count_is_that_of_this_process():
    assert 1 <= workers.core_count() <= os.cpu_count()


class Terminal(io.StringIO):
    def isatty(self):
        return True


def test_a_file_gets_plain_lines_and_a_last_one():
    stream = io.StringIO()
    assert list(progress.report(range(5), total=5, label="rendering", unit="scenes", stream=stream)) == list(
        range(5)
    )
    lines = stream.getvalue().splitlines()
    assert len(lines) == 1
    assert lines[0].startswith("rendering: 5 of 5 scenes, ")
    assert "\r" not in stream.getvalue()


def test_lines_come_every_few_seconds(monkeypatch):
    clock = iter(range(0, 100, 2))
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    stream = io.StringIO()
    list(progress.report(range(9), total=9, label="x", unit="images", stream=stream))
    assert [line.split()[1] for line in stream.getvalue().splitlines()] == ["3", "6", "9"]


def test_a_terminal_gets_a_bar():
    stream = Terminal()
    assert list(progress.report(range(5), total=5, label="rendering", unit="scenes", stream=stream)) == list(
        range(5)
    )
    assert "\r" in stream.getvalue()
    assert "rendering: 100%" in stream.getvalue()
    assert "5/5" in stream.getvalue()
