"""An ordered parallel map whose workers die with their parent."""

import collections
import contextlib
import itertools
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent import futures
from typing import TypeVar

import cv2

from data.errors import DataError

A = TypeVar("A")
B = TypeVar("B")

_WORKER_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # the workers are the parallelism
    "OMP_NUM_THREADS": "1",
    # glibc: keep freed arrays rather than fault their pages in again (a sixth of the time)
    "MALLOC_MMAP_THRESHOLD_": str(2**26),
    "MALLOC_TRIM_THRESHOLD_": str(2**28),
    "MALLOC_TOP_PAD_": str(2**25),
}


def core_count() -> int:
    """Cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def ordered_map(
    function: Callable[[A], B], items: Iterable[A], *, processes: int, chunk: int = 16
) -> Iterator[B]:
    """`map` over processes: order kept, at most a few chunks in flight, the first error raised here.

    `function` must be picklable (module level or a partial of such). With one process it runs here.
    """
    if processes <= 1:
        yield from map(function, items)
        return
    context = multiprocessing.get_context("spawn")  # a fork would copy the threads' locks of JAX and OpenCV
    pool = futures.ProcessPoolExecutor(processes, mp_context=context, initializer=_start_worker)
    try:
        with _environment(_WORKER_ENVIRONMENT):
            waiting = _submit(pool, function, chunks := _chunks(items, chunk), 3 * processes)
        yield from _drain(pool, function, chunks, waiting)
    except futures.process.BrokenProcessPool as error:
        raise DataError("a worker process was killed (out of memory?): free some and start again") from error
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _submit(pool, function, chunks, count) -> list[futures.Future]:
    return [pool.submit(_apply, function, part) for part in itertools.islice(chunks, count)]


def _drain(pool, function, chunks, waiting):
    queue = collections.deque(waiting)
    while queue:
        done = queue.popleft().result()
        queue.extend(_submit(pool, function, chunks, 1))
        yield from done


@contextlib.contextmanager
def _environment(variables: dict[str, str]):
    """Sets environment variables for the processes that are started meanwhile."""
    before = {name: os.environ.get(name) for name in variables}
    os.environ.update(variables)
    try:
        yield
    finally:
        for name, value in before.items():
            os.environ.pop(name) if value is None else os.environ.update({name: value})


def _chunks(items: Iterable[A], size: int) -> Iterator[list[A]]:
    iterator = iter(items)
    return iter(lambda: list(itertools.islice(iterator, size)), [])


def _apply(function: Callable[[A], B], items: Sequence[A]) -> list[B]:
    return [function(item) for item in items]


def _start_worker() -> None:
    """One core per worker; and no orphan: a worker whose parent was killed would wait for work for ever."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl-C goes to all: the parent answers it
    threading.Thread(target=_leave_with_parent, daemon=True).start()


def _leave_with_parent() -> None:
    multiprocessing.parent_process().join()
    os._exit(1)
