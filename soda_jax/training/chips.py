"""What makers say of their accelerators: the one table of peaks, memories and bandwidths.

All figures are published maxima of one device as JAX counts them (a TPU chip, a GPU), dense, no sparsity:
  TPU    docs.cloud.google.com/tpu/docs/{v2,v3,v4,v5e,v5p,v6e} (interconnect: half of the bidirectional figure; a
         chip of v2 and v3 is two devices, which share its figures)
  NVIDIA data sheets of the V100, A100, L4, H100 and H200 (SXM) and of the DGX B200 (NVLink: half of the bidirectional
         figure; the L4 has PCIe 4.0 x16)
TPUs multiply float32 in bfloat16 passes by default, NVIDIA's GPUs (from the A100 on) in TF32.
"""

import re
from dataclasses import dataclass

GB, GIB, TERA = 10**9, 2**30, 10**12


@dataclass(frozen=True, kw_only=True)
class Chip:
    """One device. `kind`: pattern of jax's device_kind. Operations and bytes a second; memory in bytes.

    `memory`: of which runtimes keep a part for themselves, so that a program may fail slightly below it.
    `link`: bytes a second that it can send to the others of its slice or machine, by all its links together.
    `between`: the same to other slices or machines, its share of their network cards. None: not known here.
    """

    name: str
    kind: str
    bfloat16: float
    float32: float
    memory: int
    bandwidth: float
    link: float | None = None
    between: float | None = None

    def peak(self, dtype: str) -> float:
        """Operations a second with inputs of this type."""
        return self.bfloat16 if dtype == "bfloat16" else self.float32


def _tpu(
    name: str,
    kind: str,
    tera: float,
    gib: float,
    gb: float,
    link: float | None = None,
    gbit: float | None = None,
) -> Chip:
    return Chip(
        name=name,
        kind=kind,
        bfloat16=tera * TERA,
        float32=tera * TERA,
        memory=int(gib * GIB),
        bandwidth=gb * GB,
        link=link and link * GB,
        between=gbit and gbit / 8 * GB,
    )


def _gpu(name: str, kind: str, tera: tuple[float, float], memory: float, gb: float, link: float) -> Chip:
    return Chip(
        name=name,
        kind=kind,
        bfloat16=tera[0] * TERA,
        float32=tera[1] * TERA,
        memory=int(memory * GB),
        bandwidth=gb * GB,
        link=link * GB,
    )


# TPU: 10^12 operations, GiB, GB/s of memory, GB/s sent inside a slice, Gbit/s between slices (their network, by chips).
# GPU: 10^12 operations in bfloat16 and by default in float32, GB, GB/s of memory, GB/s sent inside a machine.
CHIPS = (
    _tpu("v2", r"TPU v2", 22.5, 8.0, 350.0),
    _tpu("v3", r"TPU v3", 61.5, 16.0, 450.0),
    _tpu("v4", r"TPU v4", 275.0, 32.0, 1200.0, 300.0),
    _tpu("v5e", r"TPU v5( lite|e)", 197.0, 16.0, 819.0, 200.0, 25.0),
    _tpu("v5p", r"TPU v5", 459.0, 95.0, 2765.0, 600.0, 50.0),
    _tpu("v6e", r"TPU v6", 918.0, 32.0, 1638.0, 400.0, 100.0),
    _gpu("b200", r"B200", (2250.0, 1125.0), 180.0, 8000.0, 900.0),
    _gpu("h200", r"H200", (989.0, 494.0), 141.0, 4800.0, 450.0),
    _gpu("h100", r"H100", (989.0, 494.0), 80.0, 3350.0, 450.0),
    _gpu("a100", r"A100", (312.0, 156.0), 80.0, 2039.0, 300.0),
    _gpu("l4", r"L4\b", (121.0, 60.0), 24.0, 300.0, 32.0),
    _gpu("v100", r"V100", (125.0, 15.7), 32.0, 900.0, 150.0),
)


def chip_of(device_kind: str) -> Chip | None:
    """The chip that JAX calls this; None where the table does not know it."""
    return next((chip for chip in CHIPS if re.search(chip.kind, device_kind)), None)


def chip_named(name: str) -> Chip:
    """The chip of a topology ("v5e", "h100"); ValueError, with the names there are, for another."""
    for chip in CHIPS:
        if chip.name == name.lower():
            return chip
    raise ValueError(f"no chip is called {name!r}: take one of {', '.join(chip.name for chip in CHIPS)}")
