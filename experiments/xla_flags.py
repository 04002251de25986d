"""Compiler flags that measured faster; set before JAX first computes (importing it is not too late).

XLA aborts the process on a flag that it does not know, so flags are set only for a jaxlib that knows them.
"""

import os
from collections.abc import Callable, Mapping, MutableMapping
from importlib.metadata import version
from typing import Any

import jax

FLAGS = (
    # Matrix products and sums of the CPU through XNNPACK's successor. XLA's own sums compute what is summed anew
    # and one number at a time: a step of the small recipes takes a fifth to a quarter less time without them.
    "--xla_cpu_experimental_ynn_fusion_type=LIBRARY_FUSION_TYPE_DOT,LIBRARY_FUSION_TYPE_REDUCE",
    # A third less time to compile on the CPU, at the same speed of the program.
    "--xla_llvm_disable_expensive_passes=true",
)
KNOWN_TO = ("0.10.", "0.12.")
LEVEL = "xla_backend_optimization_level"


def set_up(environment: MutableMapping[str, str] = os.environ, jaxlib: str | None = None) -> None:
    """Adds the flags to XLA_FLAGS, except those that the user has set."""
    jaxlib = version("jaxlib") if jaxlib is None else jaxlib
    if not jaxlib.startswith(KNOWN_TO):
        return
    present = environment.get("XLA_FLAGS", "")
    missing = [flag for flag in FLAGS if flag.partition("=")[0] not in present]
    environment["XLA_FLAGS"] = " ".join([present, *missing]).strip()


def jit_seldom(function: Callable, **how: Any) -> Callable:
    """`jax.jit(function, **how)` of a program that runs once or now and then.

    The CPU's compiler optimises it less: for fresh parameters, hundreds of random arrays, that takes less than half
    the time and gives the same bits.
    """
    return jax.jit(function, compiler_options=less_effort(), **how)


def less_effort(environment: Mapping[str, str] = os.environ, jaxlib: str | None = None) -> dict[str, Any]:
    """Options of such a program; none where the user has set the level, or jaxlib may not know it."""
    known = (version("jaxlib") if jaxlib is None else jaxlib).startswith(KNOWN_TO)
    if jax.default_backend() != "cpu" or not known or LEVEL in environment.get("XLA_FLAGS", ""):
        return {}
    return {LEVEL: 1}
