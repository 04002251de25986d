"""How much work an image is, and what share of the device's peak that makes (MFU).

    work  = 3 F,  F = 2 x multiplications of the convolutions and matrix products of one forward pass   (1)
    MFU   = work x images per second / (peak x devices)                                                  (2)

The factor 3 is the usual count of forward (1) and backward (2); work done again by rematerialisation is not
counted (arXiv 2204.02311). F is read off the traced program, so it holds for any network.
"""

import math
from collections.abc import Callable
from typing import Any

import jax

from soda_jax.training.chips import chip_of

FORWARD_AND_BACKWARD = 3


def forward_flops(function: Callable, *abstract: Any) -> int:
    """F of (1) for one call on arrays of these shapes; nothing is computed."""
    return count(jax.make_jaxpr(function)(*abstract).jaxpr)


def training_flops(forward: int) -> int:
    """(1)."""
    return FORWARD_AND_BACKWARD * forward


def peak_flops(device_kind: str, dtype: str) -> float | None:
    """Operations a second of one device; None where the table does not know it."""
    chip = chip_of(device_kind)
    return chip and chip.peak(dtype)


def utilisation(flops_per_image: int, images_per_second: float, peak: float, devices: int) -> float:
    """(2), a share of 1."""
    return flops_per_image * images_per_second / (peak * devices)


def count(jaxpr: Any) -> int:
    """Operations of a traced program; a loop counts as often as it runs, a branch as its longest."""
    return sum(_equation(equation) for equation in jaxpr.eqns)


def _equation(equation: Any) -> int:
    if equation.primitive.name == "conv_general_dilated":
        return _convolution(equation)
    if equation.primitive.name == "dot_general":
        return _product(equation)
    inner = [count(getattr(j, "jaxpr", j)) for j in _programs(equation.params)]
    if equation.primitive.name == "cond":
        return max(inner)
    return sum(inner) * equation.params.get("length", 1) if equation.primitive.name == "scan" else sum(inner)


def _convolution(equation: Any) -> int:
    kernel = equation.invars[1].aval.shape
    features = kernel[equation.params["dimension_numbers"].rhs_spec[0]]
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(kernel) // features


def _product(equation: Any) -> int:
    (contracted, _), _ = equation.params["dimension_numbers"]
    left = equation.invars[0].aval.shape
    return 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)


def _programs(parameters: dict) -> list[Any]:
    """The programs inside an equation (of a scan, a remat, a custom derivative, ...)."""
    found = []
    for value in parameters.values():
        values = value if isinstance(value, tuple | list) else (value,)
        found += [v for v in values if hasattr(getattr(v, "jaxpr", v), "eqns")]
    return found
