"""How processes find each other: what is said, what the launcher says, and what is refused."""

import jax
import pytest

from soda_jax.parallel.joining import (
    JoinError,
    Place,
    check,
    completed,
    join,
    launcher,
    local_devices,
    one_of_several,
)
from tests import launched

SLURM = {"SLURM_STEP_NUM_TASKS": "4", "SLURM_PROCID": "3"}
OPEN_MPI = {"OMPI_COMM_WORLD_SIZE": "2", "OMPI_COMM_WORLD_RANK": "1"}
OURS = {"SODA_JAX_COORDINATOR": "host:1", "SODA_JAX_PROCESSES": "8", "SODA_JAX_PROCESS": "5"}
JOIN = (
    "import sys; from soda_jax.parallel.joining import *; import jax;"
    "print(join('auto', Place(), timeout=5), jax.process_count())"
)


@pytest.mark.parametrize(
    ("environment", "found"),
    [
        ({}, None),
        (SLURM, ("Slurm", 4, 3)),
        (OPEN_MPI, ("Open MPI", 2, 1)),
        ({"PMI_SIZE": "2", "PMI_RANK": "0"}, ("MPI", 2, 0)),
        ({"SLURM_PROCID": "0"}, None),
    ],
)
def test_the_launcher_is_known_by_its_variables(environment, found):
    assert launcher(environment) == found


@pytest.mark.parametrize(
    ("said", "environment", "place"),
    [
        (Place(), {}, Place()),
        (Place(), OURS, Place(coordinator="host:1", processes=8, process=5)),
        (Place(process=2), OURS, Place(coordinator="host:1", processes=8, process=2)),
        (Place(coordinator="a:1"), OPEN_MPI, Place(coordinator="a:1", processes=2, process=1)),
        (Place(), SLURM | OURS, Place(coordinator="host:1", processes=8, process=5)),
    ],
    ids=[
        "alone",
        "by our launcher",
        "a flag comes first",
        "address by hand, numbers by MPI",
        "ours comes first",
    ],
)
def test_what_is_not_said_comes_from_the_environment(said, environment, place):
    assert completed(said, environment) == place


@pytest.mark.parametrize(
    ("environment", "sign"),
    [
        ({"TPU_WORKER_HOSTNAMES": "a,b"}, "TPU_WORKER_HOSTNAMES=a,b"),
        ({"TPU_WORKER_HOSTNAMES": "a"}, None),
        ({"JOB_COMPLETION_INDEX": "0"}, "JOB_COMPLETION_INDEX=0"),
        ({}, None),
    ],
)
def test_signs_of_siblings(environment, sign):
    found = one_of_several(environment)
    assert found is None if sign is None else found.startswith(sign)


@pytest.mark.parametrize(
    ("environment", "devices"),
    [
        ({}, None),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "8", "OMPI_COMM_WORLD_LOCAL_RANK": "3"}, [3]),
        ({"OMPI_COMM_WORLD_LOCAL_SIZE": "1", "OMPI_COMM_WORLD_LOCAL_RANK": "0"}, None),
        ({"MPI_LOCALNRANKS": "2", "MPI_LOCALRANKID": "1"}, [1]),
    ],
)
def test_processes_of_one_host_take_a_gpu_each(environment, devices):
    assert local_devices(environment) == devices


@pytest.mark.parametrize(
    ("place", "words"),
    [
        (Place(coordinator="host:1"), "needs --processes=N .* and --process=I"),
        (Place(coordinator="host", processes=2, process=0), "must be HOST:PORT, found 'host'"),
        (Place(processes=0, process=0), "--processes must be 1 or more"),
        (Place(coordinator="h:1", processes=2, process=2), "--process must be 0 to"),
        (Place(process=-1), "--process must be 0 to"),
    ],
)
def test_what_makes_no_sense_is_refused(place, words):
    with pytest.raises(ValueError, match=words):
        check(place)


def test_off_runs_alone_whatever_the_environment_says(monkeypatch):
    monkeypatch.setenv("OMPI_COMM_WORLD_SIZE", "2")
    monkeypatch.setenv("OMPI_COMM_WORLD_RANK", "0")
    assert join("off", Place()) == "one process"
    with pytest.raises(ValueError, match="leave out --coordinator"):
        join("off", Place(processes=2))


@pytest.mark.parametrize("environment", [{}, {"OMPI_COMM_WORLD_SIZE": "1", "OMPI_COMM_WORLD_RANK": "0"}])
def test_on_a_plain_host_there_is_one_process(environment):
    status, output = launched.finished(launched.start_alone(["-c", JOIN], **environment))
    assert (status, output.strip()) == (0, "one process 1"), output


def test_where_jax_has_computed_already_a_lone_process_goes_on_and_one_of_several_does_not(monkeypatch):
    jax.devices()
    assert join("auto", Place()) == "one process"
    with pytest.raises(JoinError, match=r"one of several: 2 processes; .*before any JAX calls"):
        join("auto", Place(coordinator="127.0.0.1:1", processes=2, process=0))
    monkeypatch.setenv("JOB_COMPLETION_INDEX", "0")
    with pytest.raises(JoinError, match="an indexed Kubernetes job"):
        join("auto", Place())


@pytest.mark.parametrize(
    "environment",
    [OPEN_MPI, {"TPU_WORKER_HOSTNAMES": "a,b"}, {"JOB_COMPLETION_INDEX": "1"}],
    ids=["Open MPI 5 does not say where", "pod", "indexed job"],
)
def test_one_of_several_never_runs_alone(environment):
    status, output = launched.finished(launched.start_alone(["-c", JOIN], **environment))
    assert status == 1 and "could not join the other processes" in output and JoinError.__name__ in output
    assert "one process" not in output


def test_a_process_whose_siblings_do_not_come_fails(tmp_path):
    where = ("--coordinator=127.0.0.1:1", "--processes=2", "--process=1", "--join_timeout=3")
    run = launched.start_alone([*launched.training(tmp_path), *where])
    status, output = launched.finished(run)
    assert status != 0, output
    assert not (tmp_path / "checkpoints").exists() and not (tmp_path / "metrics.jsonl").exists()
