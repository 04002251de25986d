"""Single operations in ONNX against JAX, and those that have no rule."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.export import onnx_graph
from soda_jax.export.onnx_rules import Graph

onnx = pytest.importorskip("onnx")
ort = pytest.importorskip("onnxruntime")

SIDE = (4, 6)


def run_both(function, *, count=3):
    """The function of float images [b, 4, 6], by JAX and by ONNX."""
    (batch,) = jax.export.symbolic_shape("b")
    closed = jax.jit(function).trace(jax.ShapeDtypeStruct((batch, *SIDE), jnp.float32)).jaxpr
    graph = Graph("images")
    graph.output(onnx_graph.run(graph, closed, ["images"])[0], "y")
    made = onnx.helper.make_graph(
        [onnx.helper.make_node(op, ins, [out], **fields) for op, ins, out, fields in graph.nodes],
        "test",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.FLOAT, ["b", *SIDE])],
        [onnx.helper.make_empty_tensor_value_info("y")],
        [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", onnx_graph.OPSET)]
    model = onnx.helper.make_model(made, opset_imports=opsets, ir_version=onnx_graph.IR)
    images = np.random.default_rng(0).uniform(0.1, 0.9, (count, *SIDE)).astype(np.float32)
    session = ort.InferenceSession(model.SerializeToString())
    return session.run(["y"], {"images": images})[0], np.asarray(jax.jit(function)(images)), graph


W = jnp.asarray(np.random.default_rng(1).normal(size=(6, 5)), jnp.float32)

FUNCTIONS = {
    "elementwise": lambda x: jnp.exp(x) / jnp.sqrt(x) - jnp.tanh(x) * jax.nn.sigmoid(x) + jnp.log(x) ** 3,
    "rsqrt and square": lambda x: jax.lax.rsqrt(x) + jnp.square(x) - jnp.abs(-x),
    "where": lambda x: jnp.where((x > 0.5) & (x <= 0.8), x, jnp.minimum(1 - x, 0.3)),
    "silu and gelu": lambda x: jax.nn.silu(x) + jax.nn.gelu(x) + jax.nn.gelu(x, approximate=False),
    "softmax": lambda x: jax.nn.softmax(x, axis=-1),
    "reductions": lambda x: x.sum(1) + x.max(1) - x.min(1) + x.mean((1, 2))[:, None],
    "variance": lambda x: (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + 1e-5),
    "product": lambda x: x @ W,
    "products of pairs": lambda x: jnp.einsum("bij,bkj->bik", x, x),
    "contraction of two": lambda x: jnp.einsum("bij,ij->b", x, jnp.ones(SIDE)),
    "reshape and transpose": lambda x: x.reshape(-1, 3, 8).transpose(0, 2, 1),
    "slices": lambda x: jnp.concatenate(
        [jax.lax.slice_in_dim(x, 1, 5, 3, axis=2), jax.lax.slice_in_dim(x, 0, 4, axis=2)], axis=2
    ),
    "padding": lambda x: jnp.pad(x, ((0, 0), (1, 2), (0, 3)), constant_values=0.5),
    "a constant grid": lambda x: x + jnp.sin(jnp.arange(24.0)).reshape(1, *SIDE),
    "a constant for each image": lambda x: jnp.concatenate([x, jnp.ones((x.shape[0], 1, 6))], axis=1),
    "sum of two broadcast arrays": lambda x: x.sum(1, keepdims=True) + x.sum(2, keepdims=True),
    "a broadcast array that is summed": lambda x: (
        jnp.broadcast_to(x.sum(1, keepdims=True), x.shape) * 2.0
    ).sum(1),
    "convolution": lambda x: jax.lax.conv_general_dilated(
        x[..., None],
        W.reshape(3, 2, 1, 5),
        (2, 1),
        [(1, 0), (2, 1)],
        dimension_numbers=("NHWC", "HWIO", "NHWC"),
    ),
    "checkpointed": lambda x: jax.checkpoint(jnp.sin)(x),
}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_operations_agree(name):
    found, expected, _ = run_both(FUNCTIONS[name])
    assert found.shape == expected.shape and found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


def test_what_does_not_depend_on_the_images_is_computed_here():
    _, _, graph = run_both(FUNCTIONS["a constant grid"])
    assert [node[0] for node in graph.nodes] == ["Shape", "Add", "Identity"]


def test_arrays_are_only_blown_up_where_onnx_would_not():
    small, large = FUNCTIONS["variance"], FUNCTIONS["a constant for each image"]
    assert "Expand" not in {node[0] for node in run_both(small)[2].nodes}
    assert "Expand" in {node[0] for node in run_both(large)[2].nodes}


@pytest.mark.parametrize(
    ("function", "words"),
    [
        (lambda x: jnp.cumsum(x, axis=1), "no rule for the operation 'cumsum'"),
        (lambda x: jnp.broadcast_to(x[None], (2, *x.shape)), "batch must be the first axis"),
    ],
)
def test_what_has_no_rule_says_so(function, words):
    with pytest.raises(ValueError, match=words):
        run_both(function)
