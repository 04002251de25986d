"""Compiles the training step for devices that are not there, and reads off the program what it will ask of them."""

import math
import os
import re
import time
from collections import Counter
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

import jax
from jax.experimental import topologies
from ml_collections import ConfigDict

from experiments.advice import advice
from experiments.job import Program, design
from soda_jax.parallel.collectives import Collective, collectives
from soda_jax.training import tables
from soda_jax.training.chips import GIB, Chip, chip_named
from soda_jax.training.roofline import crosses, least_sent, roofline, sent
from soda_jax.types import Tree

EXAMPLES = "v5e:4x4, v6e:4x4, v4:2x2x4, v5p:2x2x2, h100:8"
NEEDED = re.compile(
    r"Used ([\d.]+)([KMG]) of ([\d.]+)([KMG]) hbm"
)  # what the TPU compiler says when it gives up
QUICK = {"exec_time_optimization_effort": -1.0}
UNITS = {"K": 2**10, "M": 2**20, "G": GIB}


@dataclass(frozen=True, kw_only=True)
class Topology:
    """Devices to compile for. `simulated`: CPU devices that stand for GPUs, so that all of it is an estimate."""

    name: str
    slices: int
    chip: Chip
    devices: Sequence[Tree]
    simulated: bool


@dataclass(frozen=True, kw_only=True)
class Attempt:
    """A compiled program, or how many bytes of memory it would have `needed`; how long it took."""

    compiled: jax.stages.Compiled | None
    needed: int | None
    quick: bool
    seconds: Mapping[str, float]


class NoTpuCompiler(RuntimeError):
    """libtpu is not installed, or cannot be loaded; the text says what to do."""


def topology(name: str, slices: int = 1) -> Topology:
    """ "v5e:16x16" (of `slices` slices), or "h100:8": GPUs in one machine.

    Raises ValueError for a name or number that is none, NoTpuCompiler where TPU programs cannot be compiled.
    """
    kind, _, shape = name.partition(":")
    chip = chip_named(kind)
    if slices < 1:
        raise ValueError(f"--slices must be 1 or more, found {slices}")
    if chip.kind.startswith("TPU"):
        return Topology(name=name, slices=slices, chip=chip, devices=_tpus(name, slices), simulated=False)
    if not re.fullmatch(r"[1-9]\d*", shape):
        raise ValueError(f"--topology={name}: expected a number of GPUs behind the colon ({EXAMPLES})")
    if slices > 1:
        raise ValueError(f"--slices={slices} is for TPUs; for GPUs give the number of all: {kind}:{shape}")
    return Topology(name=name, slices=1, chip=chip, devices=_stand_ins(int(shape)), simulated=True)


def _tpus(name: str, slices: int) -> Sequence[Tree]:
    if not re.fullmatch(r"\w+:\d+x\d+(x\d+)?", name):
        raise ValueError(f"--topology={name}: expected the sides of a slice behind the colon ({EXAMPLES})")
    os.environ.setdefault("TPU_SKIP_MDS_QUERY", "1")  # there is no TPU machine to ask about itself
    os.environ.setdefault(
        "ALLOW_MULTIPLE_LIBTPU_LOAD", "1"
    )  # nothing runs on a TPU here, so no lock is needed
    os.environ.setdefault("TPU_LOG_DIR", "disabled")
    more = {"num_slices": slices} if slices > 1 else {}
    more |= (
        {"chip_config_name": "megacore"} if name.startswith("v4:") else {}
    )  # one device a chip, as its hosts run
    try:
        return topologies.get_topology_desc(name, "tpu", **more).devices
    except (jax.errors.JaxRuntimeError, RuntimeError, ImportError, OSError) as error:
        words = str(error).strip().splitlines()[0]
        if re.search(r"topology|INVALID_ARGUMENT|bounds", words, re.IGNORECASE):
            raise ValueError(f"--topology={name}: no such slice ({words}); for example {EXAMPLES}") from error
        raise NoTpuCompiler(
            f"TPU programs are compiled by libtpu, which could not be loaded ({words}): pip install 'soda_jax[tpu-aot]'"
        ) from error


def _stand_ins(count: int) -> Sequence[Tree]:
    """So many devices of the CPU; they are made when JAX first looks for devices, so ask before that."""
    with suppress(RuntimeError):  # it has looked already: those that it found must do
        jax.config.update("jax_num_cpu_devices", max(count, jax.config.jax_num_cpu_devices))
    present = jax.devices("cpu")
    if len(present) < count:
        raise ValueError(f"{count} devices were asked for, and JAX had made {len(present)} of the CPU before")
    return present[:count]


def measure(config: ConfigDict, place: Topology, quick: bool = False) -> dict[str, Any]:
    """Compiles, and returns all figures, of one device unless they say otherwise: JSON, as `compile.py` documents.

    quick: let the compiler try less hard. Raises ValueError for a config that is wrong; a program that does not fit is
    no error but `"fits": false`.
    """
    program = design(config, place.devices)
    return figures(program, place, attempt(program, quick))


def attempt(program: Program, quick: bool = False) -> Attempt:
    """Compiles a program for the devices of its mesh."""
    start = time.monotonic()
    lowered = program.lower()
    traced = time.monotonic()
    try:
        compiled, needed = lowered.compile(compiler_options=QUICK if quick else None), None
    except jax.errors.JaxRuntimeError as error:
        compiled, needed = None, too_large(str(error))
        if needed is None:
            raise
    seconds = {"lower_seconds": traced - start, "compile_seconds": time.monotonic() - traced}
    return Attempt(compiled=compiled, needed=needed, quick=quick, seconds=seconds)


def figures(program: Program, place: Topology, tried: Attempt) -> dict[str, Any]:
    """What `measure` returns, of a program that was compiled before."""
    rounded = {name: round(value, 1) for name, value in tried.seconds.items()}
    about = {**_setting(program, place), "quick": tried.quick, **rounded}
    if tried.compiled is None:
        return {**about, **_too_much(program, place, tried.needed)}
    return {**about, **_figures(program, place, tried.compiled)}


def too_large(message: str) -> int | None:
    """Bytes that the compiler would have needed, from its refusal; None if it refused for another reason."""
    found = NEEDED.search(message)
    return int(float(found[1]) * UNITS[found[2]]) if found and "RESOURCE_EXHAUSTED" in message else None


def _setting(program: Program, place: Topology) -> dict[str, Any]:
    c, devices = program.config, program.mesh.devices.size
    return {
        "topology": place.name,
        "slices": place.slices,
        "chip": place.chip.name,
        "devices": devices,
        "mesh": dict(program.mesh.shape),
        "estimate": place.simulated,
        "batch": c.train.batch,
        "accumulation": program.accumulation,
        "images_per_device": c.train.batch // devices,
        "remat": c.model.remat,
        "dtype": c.model.dtype,
        "hbm_bytes": place.chip.memory,
        "state_bytes": tables.state_bytes(program.abstract, program.shardings)[1],
        "model_flops": program.flops_per_image * c.train.batch // devices,
        "collective_bytes_least": round(least(program)),
    }


def least(program: Program) -> float:
    """What any program for this mesh must send, were everything sent in the type that the networks compute in."""
    width = 2 if program.config.model.dtype == "bfloat16" else 4
    return least_sent(program.abstract.params, program.shardings.params, width)


def _too_much(program: Program, place: Topology, needed: int) -> dict[str, Any]:
    unknown = dict.fromkeys(("hlo_flops", "bytes_accessed", "collective_bytes", "collectives", "roofline"))
    return {**unknown, "hbm_peak_bytes": needed, "fits": False, "advice": advice(program, needed, place.chip)}


def _figures(program: Program, place: Topology, compiled: jax.stages.Compiled) -> dict[str, Any]:
    memory, costs = memory_of(compiled), compiled.cost_analysis()
    found = collectives(compiled.as_text())
    slices = [getattr(device, "slice_index", 0) for device in program.mesh.devices.flat]
    between = math.fsum(sent(c) for c in found if crosses(c, slices))
    total, work = math.fsum(sent(c) for c in found), work_of(costs, program)
    bound = roofline(
        place.chip,
        program.config.model.dtype,
        operations=work["hlo_flops"],
        model=program.flops_per_image * program.config.train.batch / program.mesh.devices.size,
        accessed=work["bytes_accessed"],
        inside=total - between,
        between=between,
    )
    fits = memory["hbm_peak_bytes"] <= place.chip.memory
    return {
        **memory,
        "fits": fits,
        **work,
        "collective_bytes": round(total),
        "collective_bytes_between_slices": round(between),
        "collectives": summary(found),
        "roofline": {**asdict(bound), "seconds": bound.seconds, "limit": bound.limit},
        "images_per_second": program.config.train.batch / bound.seconds,
        "advice": [] if fits else advice(program, memory["hbm_peak_bytes"], place.chip),
    }


def work_of(costs: Mapping[str, float], program: Program) -> dict[str, float]:
    """Operations and bytes of a step. The compiler counts the loop over microbatches as one round, and the update of
    the state, which reads and writes it once, lies outside of it."""
    rounds = program.accumulation
    update = 2.0 * tables.state_bytes(program.abstract, program.shardings)[1]
    accessed = costs["bytes accessed"]
    return {
        "hlo_flops": rounds * costs["flops"],
        "bytes_accessed": accessed + (rounds - 1) * max(accessed - update, 0.0),
    }


def memory_of(compiled: jax.stages.Compiled) -> Mapping[str, int]:
    """Bytes of arguments (the state and a batch), temporaries, the program, and of all at the worst moment."""
    analysis = compiled.memory_analysis()
    return {
        "arguments_bytes": analysis.argument_size_in_bytes,
        "temporaries_bytes": analysis.temp_size_in_bytes,
        "program_bytes": analysis.generated_code_size_in_bytes,
        "hbm_peak_bytes": analysis.peak_memory_in_bytes + analysis.generated_code_size_in_bytes,
    }


def summary(found: Sequence[Collective]) -> list[dict[str, Any]]:
    """Collectives of one kind and group size as one entry: how many run a step, bytes of results, bytes sent."""
    count, results, out = Counter(), Counter(), Counter()
    for c in found:
        key = (c.kind, c.groups)
        count[key] += c.runs
        results[key] += c.bytes * c.runs
        out[key] += sent(c)
    return [
        {"kind": kind, "devices": size, "count": count[kind, size], "bytes": results[kind, size]}
        | {"sent_bytes": round(out[kind, size])}
        for kind, size in sorted(count)
    ]
