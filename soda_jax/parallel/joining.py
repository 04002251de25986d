"""How the processes of a run find each other: JAX's distributed service, started before JAX computes anything.

Told explicitly (address, number of processes, own number), or by the launcher's environment: Slurm, Open MPI
and other MPIs, TPU pods, Kubernetes. A process that was started as one of several never runs alone: what keeps
it from joining is an error, for N separate runs that write into one folder are worse than none.
"""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import jax

Mode = Literal["auto", "off"]
OWN = {  # what experiments.launch.local sets, and the flags that say the same
    "coordinator": "SODA_JAX_COORDINATOR",
    "processes": "SODA_JAX_PROCESSES",
    "process": "SODA_JAX_PROCESS",
}
# (launcher, variable with the number of processes, variable with the number of this one)
LAUNCHERS = (
    ("Slurm", "SLURM_STEP_NUM_TASKS", "SLURM_PROCID"),
    ("Open MPI", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK"),
    ("MPI", "PMI_SIZE", "PMI_RANK"),
)
# The same for the processes of one host: several of them share its GPUs, one each.
LOCAL = (("OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"), ("MPI_LOCALNRANKS", "MPI_LOCALRANKID"))
POD_LISTS = ("TPU_WORKER_HOSTNAMES", "TPU_PROCESS_ADDRESSES")  # with commas: several hosts
NOTHING_FOUND = "coordinator_address should be defined"  # JAX's words for: this is no cluster that I know
TOO_LATE = "must be called before any JAX calls"  # its words in a notebook, where JAX has computed already


class JoinError(RuntimeError):
    """This process is one of several, and could not join them; says what to do."""


@dataclass(frozen=True, kw_only=True)
class Place:
    """Where this process stands among the others; None: not said."""

    coordinator: str | None = None  # host:port of process 0
    processes: int | None = None
    process: int | None = None

    @property
    def said(self) -> bool:
        """True if anything was."""
        return (self.coordinator, self.processes, self.process) != (None, None, None)


def join(mode: Mode, place: Place, *, timeout: int = 300, heartbeat: int = 60) -> str:
    """Joins the other processes, if this is one of several; returns in words what was done.

    mode: "auto" looks for a launcher; "off" runs alone, whatever the environment says.
    timeout: seconds to wait for the others at the start. heartbeat: seconds after which one that is silent
    counts as dead; the others then end with an error.
    Raises JoinError when it should have joined and could not, ValueError for what makes no sense.
    """
    if mode == "off":
        if place.said:
            raise ValueError(
                "--distributed=off runs alone: leave out --coordinator, --processes and --process"
            )
        return "one process"
    place = completed(place, os.environ)
    check(place)
    if jax.distributed.is_initialized() or (place.processes == 1 and place.coordinator is None):
        return "one process" if jax.process_count() == 1 else _standing()
    return _initialise(place, timeout, heartbeat)


def completed(place: Place, environment: Mapping[str, str]) -> Place:
    """What was not said, from the variables of the launcher that started this process, if one did."""
    own = {name: environment.get(variable) for name, variable in OWN.items()}
    found = launcher(environment)
    counts = {"processes": found[1], "process": found[2]} if found else {}
    return Place(
        coordinator=place.coordinator or own["coordinator"],
        **{
            name: _first(getattr(place, name), own[name], counts.get(name))
            for name in ("processes", "process")
        },
    )


def launcher(environment: Mapping[str, str]) -> tuple[str, int, int] | None:
    """(name, number of processes, number of this one) of the launcher that started this process, if any."""
    for name, size, rank in LAUNCHERS:
        if size in environment and rank in environment:
            return name, int(environment[size]), int(environment[rank])
    return None


def local_devices(environment: Mapping[str, str]) -> list[int] | None:
    """The GPU of this process where MPI started several on this host; None: whatever JAX finds right."""
    for size, rank in LOCAL:
        if rank in environment and int(environment.get(size, "1")) > 1:
            return [int(environment[rank])]
    return None


def one_of_several(environment: Mapping[str, str]) -> str | None:
    """The sign that this process has siblings, though no launcher says how many; None if there is none."""
    for name in POD_LISTS:
        if "," in environment.get(name, ""):
            return f"{name}={environment[name]}"
    if "JOB_COMPLETION_INDEX" in environment:
        return f"JOB_COMPLETION_INDEX={environment['JOB_COMPLETION_INDEX']} (an indexed Kubernetes job)"
    return None


def check(place: Place) -> None:
    """ValueError unless what is said fits together."""
    if place.processes is not None and place.processes < 1:
        raise ValueError(f"--processes must be 1 or more, found {place.processes}")
    if place.process is not None and not 0 <= place.process < (place.processes or 2**31):
        raise ValueError(
            f"--process must be 0 to --processes - 1, found {place.process} of {place.processes}"
        )
    if place.coordinator is not None and None in (place.processes, place.process):
        raise ValueError(
            f"--coordinator={place.coordinator} needs --processes=N (how many there are) and --process=I "
            "(which of them this is, from 0)"
        )
    if place.coordinator is not None and not place.coordinator.rpartition(":")[2].isdigit():
        raise ValueError(f"--coordinator must be HOST:PORT, found {place.coordinator!r}")


def _initialise(place: Place, timeout: int, heartbeat: int) -> str:
    try:
        jax.distributed.initialize(
            place.coordinator,
            place.processes,
            place.process,
            local_devices(os.environ),
            initialization_timeout=timeout,
            heartbeat_timeout_seconds=heartbeat,
        )
    except (ValueError, RuntimeError) as error:
        if not any(words in str(error) for words in (NOTHING_FOUND, TOO_LATE)):
            raise JoinError(_refusal(place, error)) from error
        sign = f"{place.processes} processes" if place.processes else one_of_several(os.environ)
        if sign:
            raise JoinError(_refusal(place, f"started as one of several: {sign}; {error}")) from error
        return "one process"
    except Exception as error:  # whatever it is, we are not to go on alone
        raise JoinError(_refusal(place, error)) from error
    return _standing()


def _standing() -> str:
    return f"process {jax.process_index()} of {jax.process_count()}"


def _refusal(place: Place, why: object) -> str:
    where = f" at {place.coordinator}" if place.coordinator else ""
    which = "" if place.process is None else f"process {place.process} of {place.processes}: "
    return (
        f"{which}could not join the other processes{where} ({why}): start all of them with the same "
        "--coordinator=HOST:PORT and --processes=N, each with its own --process=I; --distributed=off runs alone"
    )


def _first(*values: str | int | None) -> int | None:
    return next((int(value) for value in values if value is not None), None)
