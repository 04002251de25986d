"""Compiles the training step for a pod that is not there, and says what it will need:

    python -m experiments.compile --config=experiments/configs/soda_imagenet.py --topology=v5e:16x16 [--slices=2]

Any machine will do: TPU programs are compiled by libtpu (`pip install 'soda_jax[tpu-aot]'`), no data set is read, no
device of that kind is needed. A large network takes half an hour of one core and 12 GiB; LD_PRELOAD=libjemalloc.so.2
takes a fifth off. --quick lets the compiler try less hard: a quarter less time, the same operations, other
temporaries. TPUs: v4, v5e, v5p, v6e, by the sides of a slice. GPUs, by their number (`h100:8`; a100, h200, b200, l4,
v100): an estimate only, of the memory before all, for it is the program of as many CPUs that is read.

--out=FILE writes the table as JSON, of one device where it does not say otherwise:

    topology, slices, chip, devices, mesh, batch, accumulation, images_per_device, remat, dtype, estimate
    fits, hbm_peak_bytes, hbm_bytes (of the chip), arguments_bytes, temporaries_bytes, program_bytes,
        state_bytes
    hlo_flops, model_flops (counted from the networks), bytes_accessed
    collective_bytes (sent), collective_bytes_least, collective_bytes_between_slices, collectives (by kind)
    roofline {compute, memory, network, seconds, limit, mfu}, images_per_second (of all): bounds
    quick, lower_seconds, compile_seconds, advice; null is what a program that does not fit cannot tell

Exit status: 0 compiled and fits, 2 does not fit, 1 something else was wrong.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
from absl import app, flags, logging

from experiments.ahead import NoTpuCompiler, measure, topology
from experiments.train import parse_flags, quiet_libraries
from soda_jax.training.progress import elapsed
from soda_jax.training.tables import size_text, table

_TOPOLOGY = flags.DEFINE_string("topology", None, "Devices: v5e:16x16, v5p:2x2x2, v6e:4x4, v4:2x2x4, h100:8.")
_SLICES = flags.DEFINE_integer("slices", 1, "Slices of TPUs of that topology, joined by the slower network.")
_QUICK = flags.DEFINE_bool("quick", False, "Let the compiler try less hard: sooner, with other temporaries.")
_OUT = flags.DEFINE_string("out", None, "A file for the table as JSON.")
DOES_NOT_FIT = 2


def main(argv: list[str]) -> None:
    """Exit status: see above."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    quiet_libraries()
    jax.config.update("jax_platforms", "cpu")
    try:
        with elapsed("compiling"):
            found = measure(flags.FLAGS.config, topology(_TOPOLOGY.value, _SLICES.value), _QUICK.value)
        if _OUT.value:
            Path(_OUT.value).write_text(json.dumps(found, indent=2) + "\n")
    except (ValueError, OSError, NoTpuCompiler) as error:
        logging.info("where it happened", exc_info=True)  # shown with --verbosity=1
        raise SystemExit(f"error: {error}") from error
    print(text(found))
    if not found["fits"]:
        raise SystemExit(DOES_NOT_FIT)


def text(found: Mapping[str, Any]) -> str:
    """The figures of `ahead.measure` for people."""
    parts = [heading(found), memory_lines(found)]
    if found["roofline"]:
        parts += [work_lines(found), collective_lines(found), bound_lines(found)]
    if found["advice"]:
        parts.append("\n".join(["it does not fit. To try next:", *(f"  {line}" for line in found["advice"])]))
    return "\n\n".join(parts)


def heading(found: Mapping[str, Any]) -> str:
    """What was compiled, for what."""
    mesh = ", ".join(f"{axis} {size}" for axis, size in found["mesh"].items())
    slices = f" x {found['slices']} slices" if found["slices"] > 1 else ""
    lines = [
        f"{found['topology']}{slices}: {found['devices']} devices, mesh: {mesh}",
        f"batch: {found['batch']} images, {found['images_per_device']} a device in {found['accumulation']} part(s); "
        f"{found['dtype']}, remat: {found['remat']}",
        f"traced in {found['lower_seconds']} s, compiled in {found['compile_seconds']} s",
    ]
    if found["estimate"]:
        lines.append(
            "an ESTIMATE: read off the program of as many CPUs, which keeps other things than a GPU's"
        )
    return "\n".join(lines)


def memory_lines(found: Mapping[str, Any]) -> str:
    """Peak against the chip's memory."""
    share = found["hbm_peak_bytes"] / found["hbm_bytes"]
    verdict = "fits" if found["fits"] else "DOES NOT FIT"
    peak, there = size_text(found["hbm_peak_bytes"]), size_text(found["hbm_bytes"])
    first = f"memory a device: {peak} of {there} ({share:.0%}): {verdict}"
    if "arguments_bytes" not in found:
        return f"{first}\n  state {size_text(found['state_bytes'])}"
    arguments, temporaries = size_text(found["arguments_bytes"]), size_text(found["temporaries_bytes"])
    return f"{first}\n  arguments {arguments} (state {size_text(found['state_bytes'])}), temporaries {temporaries}"


def work_lines(found: Mapping[str, Any]) -> str:
    """Operations of the program against those of the model."""
    ratio = found["hlo_flops"] / found["model_flops"]
    return (
        f"work a device and step: {found['hlo_flops'] / 1e12:.3f} TFLOP in the program, "
        f"{found['model_flops'] / 1e12:.3f} by the networks' count ({ratio:.3f}); "
        f"{size_text(found['bytes_accessed'])} to and from memory"
    )


def collective_lines(found: Mapping[str, Any]) -> str:
    """Who says what to whom."""
    rows = [
        (c["kind"], str(c["devices"]), str(c["count"]), size_text(c["bytes"]), size_text(c["sent_bytes"]))
        for c in found["collectives"]
    ]
    least, total = found["collective_bytes_least"], found["collective_bytes"]
    ratio = f" ({total / least:.3f})" if least else ""
    last = f"sent in all {size_text(total)}; this mesh needs {size_text(least)}{ratio}"
    if found["collective_bytes_between_slices"]:
        last += f"; to other slices {size_text(found['collective_bytes_between_slices'])}"
    header = ("collective", "devices", "a step", "results", "sent a device")
    return f"{table(header, rows, right=(1, 2, 3, 4))}\n{last}"


def bound_lines(found: Mapping[str, Any]) -> str:
    """What the chip allows at best."""
    bound = found["roofline"]
    network = "not known" if bound["network"] is None else f"{1e3 * bound['network']:.2f} ms"
    return (
        f"at best, by the maker's figures for {found['chip']} (a bound: real steps take longer):\n"
        f"  compute {1e3 * bound['compute']:.2f} ms, memory {1e3 * bound['memory']:.2f} ms, network {network}\n"
        f"  {1e3 * bound['seconds']:.2f} ms a step ({bound['limit']}), {found['images_per_second']:,.0f} images/s "
        f"on all devices, MFU at most {bound['mfu']:.1%}"
    )


if __name__ == "__main__":
    flags.mark_flags_as_required(["config", "topology"])
    app.run(main, flags_parser=parse_flags)
