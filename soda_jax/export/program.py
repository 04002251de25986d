"""The encoder as a StableHLO program (`jax.export`): any batch size, for CPUs, CUDA GPUs and TPUs.

    program({name: tensor}, images uint8 [b, h, w, c]) -> {name: features}

Its first argument is what params.safetensors holds, so weights are kept once. JAX reads such programs for half a
year or so after it wrote them; the weights and config.json stay readable.
"""

from collections.abc import Callable, Mapping

import jax
import jax.numpy as jnp
from flax.traverse_util import flatten_dict, unflatten_dict
from jaxtyping import Array

from soda_jax.export.encoders import Encoder, encode
from soda_jax.types import Bytes, Features, Tree

PLATFORMS = ("cpu", "cuda", "tpu")
Tensors = Mapping[str, Array]  # "params/stem/conv/kernel" -> array, as in params.safetensors


def flat(variables: Tree) -> dict[str, Array]:
    """Variables as named tensors."""
    return flatten_dict(dict(variables), sep="/")


def nested(tensors: Tensors) -> Tree:
    """Named tensors as variables, in float32."""
    tree = unflatten_dict({name: jnp.asarray(x, jnp.float32) for name, x in tensors.items()}, sep="/")
    return {"batch_stats": {}, **tree}


def function(encoder: Encoder) -> Callable[[Tensors, Bytes], Features]:
    """The program, as a function of its tensors."""

    def program(tensors: Tensors, images: Bytes) -> Features:
        return encode(encoder.module, encoder.features, nested(tensors), images)

    return program


def specs(encoder: Encoder, tensors: Tensors) -> tuple[Tree, jax.ShapeDtypeStruct]:
    """Of its two arguments; the batch size has no value."""
    (batch,) = jax.export.symbolic_shape("b")
    abstract = {name: jax.ShapeDtypeStruct(x.shape, x.dtype) for name, x in tensors.items()}
    return abstract, jax.ShapeDtypeStruct((batch, *encoder.image_shape), jnp.uint8)


def stablehlo(encoder: Encoder, tensors: Tensors) -> bytes:
    """The program of an encoder whose weights are stored as these tensors."""
    export = jax.export.export(jax.jit(function(encoder)), platforms=PLATFORMS)
    return bytes(export(*specs(encoder, tensors)).serialize())
