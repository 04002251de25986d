"""How single JAX operations are written in ONNX (opset 18), for `onnx_graph.py`.

JAX convolves NHWC images here and ONNX knows NCHW alone: transposes stand around convolutions and poolings, and
ONNX runtimes move them out of the way.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from jax.extend.core import JaxprEqn

Value = np.ndarray | np.generic | str  # known already, or the name of a tensor that depends on the images

# Elementwise: the operands go over as they are.
BROADCASTING = {"add": "Add", "add_any": "Add", "sub": "Sub", "mul": "Mul", "div": "Div", "max": "Max"}
BROADCASTING |= {"min": "Min", "pow": "Pow", "lt": "Less", "le": "LessOrEqual", "gt": "Greater"}
BROADCASTING |= {"ge": "GreaterOrEqual", "eq": "Equal", "and": "And", "or": "Or"}
UNARY = {"exp": "Exp", "log": "Log", "tanh": "Tanh", "logistic": "Sigmoid", "sqrt": "Sqrt", "neg": "Neg"}
UNARY |= {"erf": "Erf", "abs": "Abs", "sin": "Sin", "cos": "Cos", "not": "Not", "floor": "Floor"}
UNARY |= {"copy": "Identity", "copy_p": "Identity", "stop_gradient": "Identity"}
REDUCTIONS = {"reduce_sum": "ReduceSum", "reduce_max": "ReduceMax", "reduce_min": "ReduceMin"}
LETTERS = "abcdefghijklmnopqrstuvwxyz"


class Graph:
    """An ONNX graph in the making. nodes: (operation, inputs, output, attributes); constants: name -> array."""

    def __init__(self, images: str):
        self.nodes: list[tuple[str, list[str], str, dict[str, Any]]] = []
        self.constants: dict[str, np.ndarray] = {}
        self.batch = self.add("Shape", images, start=0, end=1)  # [b], for shapes that need it

    def add(self, operation: str, *inputs: Value, **attributes: Any) -> str:
        """A node; the name of its result."""
        name = f"t{len(self.nodes)}"
        self.nodes.append((operation, [self.name(value) for value in inputs], name, attributes))
        return name

    def name(self, value: Value) -> str:
        """Of a tensor of this value; what is known becomes a constant."""
        if isinstance(value, str):
            return value
        name = f"c{len(self.constants)}"
        self.constants[name] = np.ascontiguousarray(value).reshape(value.shape)
        return name

    def shape(self, sides: Sequence[Any]) -> Value:
        """A shape whose first side may be the batch size, as a tensor. ValueError for any other unknown side."""
        if all(isinstance(side, int) for side in sides):
            return np.asarray(sides, np.int64)
        if str(sides[0]) != "b" or not all(isinstance(side, int) for side in sides[1:]):
            raise ValueError(f"encoder.onnx: the batch must be the first axis of every array, found {sides}")
        rest = np.asarray(sides[1:], np.int64)
        return self.add("Concat", self.batch, rest, axis=0) if len(rest) else self.batch

    def output(self, value: Value, name: str) -> None:
        """Names a result."""
        self.nodes.append(("Identity", [self.name(value)], name, {}))


def out_shape(e: JaxprEqn) -> tuple:
    return e.outvars[0].aval.shape


def transpose(g: Graph, x: Value, order: Sequence[int]) -> Value:
    return g.add("Transpose", x, perm=list(order)) if isinstance(x, str) else x.transpose(order)


def reshape(g: Graph, x: Value, sides: Sequence[Any]) -> Value:
    """With -1 for the side that depends on the batch size."""
    known = [side if isinstance(side, int) else -1 for side in sides]
    if known.count(-1) > 1:
        raise ValueError(f"encoder.onnx: two sides of {sides} depend on the batch size")
    return g.add("Reshape", x, np.asarray(known, np.int64)) if isinstance(x, str) else x.reshape(known)


def broadcast(g: Graph, e: JaxprEqn, x: Value, *_: Value, lazy: bool) -> Value:
    """lazy: whoever uses it broadcasts by itself."""
    sides, kept = out_shape(e), e.params["broadcast_dimensions"]
    operand = e.invars[0].aval.shape
    small = [operand[kept.index(axis)] if axis in kept else 1 for axis in range(len(sides))]
    x = x if len(small) == len(operand) else reshape(g, x, small)
    return x if lazy or tuple(small) == tuple(sides) else g.add("Expand", x, g.shape(sides))


def convolution(g: Graph, e: JaxprEqn, x: Value, kernel: Value) -> Value:
    numbers, p = e.params["dimension_numbers"], e.params
    if any(side != 1 for side in p["lhs_dilation"]) or p["batch_group_count"] != 1:
        raise ValueError(
            "encoder.onnx: no rule for transposed convolutions yet: add one to export/onnx_rules.py"
        )
    pads = [low for low, _ in p["padding"]] + [high for _, high in p["padding"]]
    fields = {"strides": list(p["window_strides"]), "dilations": list(p["rhs_dilation"]), "pads": pads}
    x, kernel = transpose(g, x, numbers.lhs_spec), transpose(g, kernel, numbers.rhs_spec)
    y = g.add("Conv", x, kernel, group=p["feature_group_count"], **fields)
    return transpose(g, y, np.argsort(numbers.out_spec).tolist())


def max_pool(g: Graph, e: JaxprEqn, x: Value) -> Value:
    """Of NHWC images."""
    window, strides, padding = (e.params[name] for name in ("window_dimensions", "window_strides", "padding"))
    if len(window) != 4 or [window[i] * strides[i] for i in (0, 3)] != [1, 1]:
        raise ValueError(f"encoder.onnx: no rule for a maximum over windows {window}")
    pads = [low for low, _ in padding[1:3]] + [high for _, high in padding[1:3]]
    y = transpose(g, x, (0, 3, 1, 2))
    y = g.add("MaxPool", y, kernel_shape=list(window[1:3]), strides=list(strides[1:3]), pads=pads)
    return transpose(g, y, (0, 2, 3, 1))


def product(g: Graph, e: JaxprEqn, a: Value, b: Value) -> Value:
    """A plain matrix product where it is one, else an Einstein sum."""
    (contract_a, contract_b), (batch_a, batch_b) = e.params["dimension_numbers"]
    rank_a, rank_b = (len(atom.aval.shape) for atom in e.invars)
    if rank_b == 2 and not batch_a and (tuple(contract_a), tuple(contract_b)) == ((rank_a - 1,), (0,)):
        return g.add("MatMul", a, b)
    names_a, names_b = list(LETTERS[:rank_a]), list(LETTERS[rank_a : rank_a + rank_b])
    for i, j in [*zip(contract_a, contract_b, strict=True), *zip(batch_a, batch_b, strict=True)]:
        names_b[j] = names_a[i]
    left = [n for i, n in enumerate(names_a) if i not in (*contract_a, *batch_a)]
    right = [n for j, n in enumerate(names_b) if j not in (*contract_b, *batch_b)]
    out = [names_a[i] for i in batch_a] + left + right
    return g.add("Einsum", a, b, equation=f"{''.join(names_a)},{''.join(names_b)}->{''.join(out)}")


def reduction(g: Graph, e: JaxprEqn, x: Value) -> Value:
    return g.add(REDUCTIONS[e.primitive.name], x, np.asarray(e.params["axes"], np.int64), keepdims=0)


def cast(g: Graph, e: JaxprEqn, x: Value) -> Value:
    from onnx.helper import np_dtype_to_tensor_dtype

    return g.add("Cast", x, to=np_dtype_to_tensor_dtype(np.dtype(e.params["new_dtype"])))


def integer_power(g: Graph, e: JaxprEqn, x: Value) -> Value:
    return g.add("Pow", x, np.asarray(e.params["y"], np.float32))


def part(g: Graph, e: JaxprEqn, x: Value) -> Value:
    """x[start:limit:step]; the batch is never cut."""
    p, sides = e.params, e.invars[0].aval.shape
    axes = [i for i, side in enumerate(sides) if isinstance(side, int)]
    steps = p["strides"] or (1,) * len(sides)
    bounds = [np.asarray([p[name][i] for i in axes], np.int64) for name in ("start_indices", "limit_indices")]
    return g.add(
        "Slice", x, *bounds, np.asarray(axes, np.int64), np.asarray([steps[i] for i in axes], np.int64)
    )


def padded(g: Graph, e: JaxprEqn, x: Value, filling: Value) -> Value:
    config = e.params["padding_config"]
    if any(inner or low < 0 or high < 0 for low, high, inner in config):
        raise ValueError(f"encoder.onnx: no rule for padding {config}")
    pads = [low for low, _, _ in config] + [high for _, high, _ in config]
    return g.add("Pad", x, np.asarray(pads, np.int64), filling)


RULES = {name: lambda g, e, a, b, op=op: g.add(op, a, b) for name, op in BROADCASTING.items()}
RULES |= {name: lambda g, e, x, op=op: g.add(op, x) for name, op in UNARY.items()}
RULES |= dict.fromkeys(REDUCTIONS, reduction)
RULES |= {
    "broadcast_in_dim": broadcast,
    "concatenate": lambda g, e, *xs: g.add("Concat", *xs, axis=e.params["dimension"]),
    "conv_general_dilated": convolution,
    "convert_element_type": cast,
    "dot_general": product,
    "erfc": lambda g, e, x: g.add("Sub", np.float32(1), g.add("Erf", x)),
    "expand_dims": lambda g, e, x: reshape(g, x, out_shape(e)),
    "integer_pow": integer_power,
    "pad": padded,
    "reduce_window_max": max_pool,
    "reshape": lambda g, e, x, *_: reshape(g, x, out_shape(e)),
    "rsqrt": lambda g, e, x: g.add("Reciprocal", g.add("Sqrt", x)),
    "select_n": lambda g, e, which, no, yes: g.add("Where", which, yes, no),
    "slice": part,
    "square": lambda g, e, x: g.add("Mul", x, x),
    "squeeze": lambda g, e, x: reshape(g, x, out_shape(e)),
    "transpose": lambda g, e, x: transpose(g, x, e.params["permutation"]),
}
