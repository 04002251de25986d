"""Starts a main as several processes on this machine, as a pod would:

    python -m experiments.launch.local --processes=2 --devices=2 -m experiments.train --config=... --workdir=DIR

Each process gets `--devices` simulated CPU devices (0: leave the devices alone). Their lines are marked with
their numbers. Ctrl-C and SIGTERM reach them all; the exit status is the worst of theirs. Once one has failed
the others get --grace seconds to end by themselves, then they are ended.
"""

import argparse
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping, Sequence

from soda_jax.parallel.joining import OWN

POLL = 0.1  # seconds between looks at the processes


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the worst exit status of the processes."""
    arguments, command = parse(sys.argv[1:] if argv is None else argv)
    port = free_port()
    children: list[subprocess.Popen] = []
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda number, frame: forward(children, number))
    for number in range(arguments.processes):
        variables = environment(os.environ, port, arguments.processes, number, arguments.devices)
        children.append(start(command, variables))
    readers = [relay(child, number) for number, child in enumerate(children)]
    statuses = wait(children, arguments.grace)
    for reader in readers:
        reader.join()
    return max(statuses)


def parse(argv: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """The launcher's own arguments, and the command that each process runs."""
    parser = argparse.ArgumentParser(
        prog="python -m experiments.launch.local",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        usage="%(prog)s [--processes=N] [--devices=N] [--grace=SECONDS] -m MODULE [ARGUMENTS]",
    )
    parser.add_argument("--processes", type=int, default=2, help="how many (default: 2)")
    parser.add_argument("--devices", type=int, default=1, help="CPU devices of each (default: 1)")
    parser.add_argument("--grace", type=float, default=120.0, help="seconds (default: 120)")
    own, module = (
        (list(argv[: argv.index("-m")]), list(argv[argv.index("-m") :])) if "-m" in argv else (argv, [])
    )
    arguments = parser.parse_args(own)
    if len(module) < 2:
        parser.error("what to run is missing: -m MODULE [ARGUMENTS], at the end")
    if arguments.processes < 1 or arguments.devices < 0:
        parser.error("--processes must be 1 or more, --devices 0 or more")
    return arguments, [sys.executable, *module]


def environment(
    base: Mapping[str, str], port: int, processes: int, number: int, devices: int
) -> dict[str, str]:
    """Of one process: where the others are, and its devices."""
    own = {"coordinator": f"127.0.0.1:{port}", "processes": str(processes), "process": str(number)}
    found = {**base, **{OWN[name]: value for name, value in own.items()}, "PYTHONUNBUFFERED": "1"}
    return found | ({"JAX_NUM_CPU_DEVICES": str(devices), "JAX_PLATFORMS": "cpu"} if devices else {})


def start(command: Sequence[str], environment: Mapping[str, str]) -> subprocess.Popen:
    """A process in a session of its own: a Ctrl-C of the terminal reaches it through us alone, once."""
    return subprocess.Popen(
        command,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        start_new_session=True,
    )


def relay(child: subprocess.Popen, number: int) -> threading.Thread:
    """Copies the lines of a process to our output, marked with its number."""

    def copy():
        for line in child.stdout:
            sys.stdout.buffer.write(b"[%d] " % number + line)
            sys.stdout.buffer.flush()

    thread = threading.Thread(target=copy, daemon=True)
    thread.start()
    return thread


def forward(children: Sequence[subprocess.Popen], number: int) -> None:
    """A signal, to all that still run; Ctrl-C is passed on as SIGTERM, on which the processes agree."""
    for child in children:
        if child.poll() is None:
            child.send_signal(signal.SIGTERM if number == signal.SIGINT else number)


def wait(children: Sequence[subprocess.Popen], grace: float) -> list[int]:
    """Until all have ended; 128 + N for one that signal N ended. See the module for what `grace` does."""
    deadline = None
    while any(child.poll() is None for child in children):
        time.sleep(POLL)
        failed = [number for number, child in enumerate(children) if child.poll()]
        if failed and deadline is None:
            deadline = time.monotonic() + grace
            print(f"launch: {describe(failed[0], children[failed[0]].returncode)}", flush=True)
        if deadline and time.monotonic() > deadline:
            end(children)
    return [status(child.returncode) for child in children]


def end(children: Sequence[subprocess.Popen]) -> None:
    """Those that still run, by force."""
    for number, child in enumerate(children):
        if child.poll() is None:
            print(f"launch: process {number} did not end by itself: killed", flush=True)
            child.kill()


def describe(number: int, code: int) -> str:
    """How a process failed."""
    how = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with status {code}"
    return f"process {number} {how}; waiting for the others"


def status(code: int) -> int:
    """An exit status as a shell gives it."""
    return code if code >= 0 else 128 - code


def free_port() -> int:
    """One that nobody listens on just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


if __name__ == "__main__":
    sys.exit(main())
