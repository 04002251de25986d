"""The encoder as an ONNX file: its jaxpr, written down operation by operation.

    images uint8 [b, h, w, c] -> one output for each feature, float32 [b, n]

Whatever does not depend on the images is computed here and becomes a constant of the file. The rules for single
operations are in `onnx_rules.py`; calls (jit, custom derivatives, remat) are opened up.
"""

from collections.abc import Sequence
from typing import Any

import jax
import numpy as np
from jax.extend.core import ClosedJaxpr, Jaxpr, JaxprEqn, Literal, Var

from soda_jax.export import program
from soda_jax.export.encoders import Encoder
from soda_jax.export.onnx_rules import BROADCASTING, RULES, Graph, Value

OPSET, IR = 18, 9  # old enough for runtimes of 2023
CALLS = {
    "jit": "jaxpr",
    "pjit": "jaxpr",
    "closed_call": "call_jaxpr",
    "remat2": "jaxpr",
    "checkpoint": "jaxpr",
}
CALLS |= {"custom_jvp_call": "call_jaxpr", "custom_vjp_call": "call_jaxpr"}


def to_onnx(encoder: Encoder, tensors: program.Tensors) -> bytes:
    """The bytes of encoder.onnx. ValueError for an operation that has no rule yet, or a file of over 2 GB."""
    import onnx  # an extra, and only needed here

    abstract, images = program.specs(encoder, tensors)
    closed = jax.jit(program.function(encoder)).trace(abstract, images).jaxpr
    weights = [np.asarray(x, np.float32) for x in jax.tree.leaves(dict(tensors))]
    graph = Graph("images")
    found = run(graph, closed, [*weights, "images"])
    for name, value in zip(sorted(encoder.features), found, strict=True):
        graph.output(value, name)
    proto = onnx.helper.make_graph(
        [onnx.helper.make_node(op, ins, [out], **fields) for op, ins, out, fields in graph.nodes],
        "encoder",
        [onnx.helper.make_tensor_value_info("images", onnx.TensorProto.UINT8, ["b", *encoder.image_shape])],
        [
            onnx.helper.make_tensor_value_info(name, onnx.TensorProto.FLOAT, ["b", *var.aval.shape[1:]])
            for name, var in zip(sorted(encoder.features), closed.jaxpr.outvars, strict=True)
        ],
        [onnx.numpy_helper.from_array(array, name) for name, array in graph.constants.items()],
    )
    opsets = [onnx.helper.make_opsetid("", OPSET)]
    model = onnx.helper.make_model(proto, opset_imports=opsets, ir_version=IR, producer_name="soda_jax")
    onnx.checker.check_model(model, full_check=True)
    return model.SerializeToString()


def run(graph: Graph, closed: ClosedJaxpr, arguments: Sequence[Value]) -> list[Value]:
    """Adds the operations of a jaxpr to the graph; its results, each an array or the name of a tensor."""
    jaxpr = closed.jaxpr
    known: dict[Var, Value] = dict(zip(jaxpr.constvars, map(np.asarray, closed.consts), strict=True))
    known |= zip(jaxpr.invars, arguments, strict=True)
    lazy = may_stay_small(jaxpr)

    def read(atom: Any) -> Value:
        return np.asarray(atom.val) if isinstance(atom, Literal) else known[atom]

    for equation in jaxpr.eqns:
        values = [read(atom) for atom in equation.invars]
        results = apply(graph, equation, values, equation.outvars[0] in lazy)
        known |= zip(equation.outvars, results, strict=True)
    return [read(atom) for atom in jaxpr.outvars]


def apply(graph: Graph, equation: JaxprEqn, values: list[Value], lazy: bool) -> list[Value]:
    """The results of one operation."""
    name, params = equation.primitive.name, equation.params
    if name in CALLS:
        return run(graph, _closed(params[CALLS[name]]), values)
    if name == "platform_index":  # the branch for platforms that are not named: what ONNX runtimes do well
        return [np.asarray(params["platforms"].index(None), np.int32)]
    if name == "cond" and not isinstance(values[0], str):
        return run(graph, _closed(params["branches"][int(values[0])]), values[1:])
    if not any(isinstance(value, str) for value in values) and _is_static(equation):
        found = equation.primitive.bind(*values, **params)
        return [np.asarray(x) for x in (found if equation.primitive.multiple_results else [found])]
    if name not in RULES:
        raise ValueError(f"encoder.onnx: no rule for the operation {name!r}: add one to export/onnx_rules.py")
    return [RULES[name](graph, equation, *values, **({"lazy": lazy} if name == "broadcast_in_dim" else {}))]


def _closed(jaxpr: Jaxpr | ClosedJaxpr) -> ClosedJaxpr:
    return jaxpr if isinstance(jaxpr, ClosedJaxpr) else ClosedJaxpr(jaxpr, ())


def _is_static(equation: JaxprEqn) -> bool:
    return all(isinstance(side, int) for var in equation.outvars for side in var.aval.shape)


def may_stay_small(jaxpr: Jaxpr) -> set[Var]:
    """Broadcast arrays that are only used where ONNX broadcasts by itself, beside an operand of full size."""
    broadcast = {e.outvars[0] for e in jaxpr.eqns if e.primitive.name == "broadcast_in_dim"}
    full = set(jaxpr.outvars) - {a for a in jaxpr.outvars if isinstance(a, Literal)}
    for equation in jaxpr.eqns:
        operands = {atom for atom in equation.invars if isinstance(atom, Var)}
        large = [v for v in operands - broadcast if v.aval.shape == equation.outvars[0].aval.shape]
        if equation.primitive.name not in (*BROADCASTING, "select_n") or not large:
            full |= operands
    return broadcast - full
