"""Weights of the public DiT (arXiv 2212.09748; files such as DiT-XL-2-256x256.pt), in the layouts of `DiT`.

    net, params = read("DiT-XL-2-256x256.pt")       told of 1000 classes, and with sigma
    net, params = without_classes(net, params)      the same net under its null class, in the shape of a DDAE's
    net, params = without_sigma(net, params)        in that of a DDAE's that is told of the classes

A file tells all sizes but the number of heads, which follows from width and depth where these are those of the paper.
"""

import re
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np

from soda_jax.nn import torch_weights
from soda_jax.nn.diffusers_weights import put
from soda_jax.nn.dit import SIZES, TIME_WIDTH, DiT, places
from soda_jax.types import Tree

State = Mapping[str, np.ndarray]  # name -> array, as PyTorch lays it out

TABLE, PATCHES, PLACES = "y_embedder.embedding_table.weight", "x_embedder.proj.weight", "pos_embed"
LAYERS = {"t_embedder.mlp.0": "time/dense_0", "t_embedder.mlp.2": "time/dense_1"}
LAYERS |= {"final_layer.adaLN_modulation.1": "out_modulation", "final_layer.linear": "out"}
OF_BLOCK = {"adaLN_modulation.1": "modulation", "attn.qkv": "attention/qkv", "attn.proj": "attention/out"}
OF_BLOCK |= {"mlp.fc1": "mlp0", "mlp.fc2": "mlp1"}
TOLERANCE = 1e-4  # of places, which are fixed and of at most 1


def read(path: str | Path, heads: int | None = None) -> tuple[DiT, Tree]:
    """The network of a file and its parameters. Raises what `torch_weights.read`, `network` and `dit_params` raise."""
    state = torch_weights.read(path)
    net = network(state, heads, path)
    return net, dit_params(state, net, path)


def network(state: State, heads: int | None = None, path: str | Path = "the weights") -> DiT:
    """The network that has arrays of these shapes.

    Raises ValueError where they do not tell its sizes, or are not of a known one and no number of heads is given.
    """
    for name in (PATCHES, "final_layer.linear.bias"):
        if name not in state:
            raise ValueError(
                f"{path} has no {name!r}, only others such as {list(state)[:3]}: give the state_dict of a DiT"
            )
    if state[PATCHES].ndim != 4:
        raise ValueError(f"{path}: {PATCHES!r} has shape {list(state[PATCHES].shape)}, expected 4 axes")
    width, channels, patch = state[PATCHES].shape[:3]
    depth = 1 + max(
        (int(number) for number in re.findall(r"(?m)^blocks\.(\d+)\.", "\n".join(state))), default=-1
    )
    known = {(size.width, size.depth): size.heads for size in SIZES.values()}
    heads = heads or known.get((width, depth))
    if heads is None:
        raise ValueError(
            f"{path}: a DiT of width {width} and depth {depth} has how many heads? Give `heads`: FILE,HEADS"
        )
    sigma = len(state["final_layer.linear.bias"]) == 2 * channels * patch**2
    classes = len(state[TABLE]) - 1 if TABLE in state else 0
    sizes = {"width": width, "depth": depth, "heads": heads, "patch": patch}
    return DiT(**sizes, out_channels=channels, class_count=classes, learn_sigma=sigma)


def dit_params(state: State, net: DiT, path: str | Path = "the weights") -> Tree:
    """The parameters of this network, float32.

    Raises ValueError, naming the key, for an array that is missing, of another shape, or of none of its layers, and
    where the places of the patches, which a network here computes, are not those that it computes.
    """
    params: Tree = {}
    wanted = {theirs: (ours, shape) for theirs, ours, shape in layout(net)}
    for theirs, (ours, shape) in wanted.items():
        put(params, tuple(ours.split("/")), laid_out(theirs, torch_weights.take(state, theirs, shape, path)))
    if extra := sorted(state.keys() - wanted.keys() - {PLACES}):
        raise ValueError(f"{path} holds {', '.join(map(repr, extra[:3]))}, which this DiT does not have")
    if PLACES in state:
        check_places(state[PLACES], net.width, path)
    return params


def layout(net: DiT) -> Iterator[tuple[str, str, tuple[int, ...]]]:
    """(their name, ours as a path, shape there) of every parameter."""
    d, out = net.width, net.out_channels * net.patch**2 * (2 if net.learn_sigma else 1)
    yield PATCHES, "embed/kernel", (d, net.out_channels, net.patch, net.patch)
    yield "x_embedder.proj.bias", "embed/bias", (d,)
    if net.class_count:
        yield TABLE, "class/embedding", (net.class_count + 1, d)
    layers = dict(LAYERS)
    for k in range(net.depth):
        layers |= {f"blocks.{k}.{theirs}": f"block_{k + 1}/{ours}" for theirs, ours in OF_BLOCK.items()}
    sizes = {
        "dense_0": (d, TIME_WIDTH),
        "dense_1": (d, d),
        "out_modulation": (2 * d, d),
        "modulation": (6 * d, d),
    }
    sizes |= {"qkv": (3 * d, d), "mlp0": (4 * d, d), "mlp1": (d, 4 * d)}
    for theirs, ours in layers.items():
        shape = (out, d) if ours == "out" else sizes.get(ours.rpartition("/")[2], (d, d))
        yield f"{theirs}.weight", f"{ours}/kernel", shape
        yield f"{theirs}.bias", f"{ours}/bias", shape[:1]


def laid_out(name: str, value: np.ndarray) -> np.ndarray:
    """[out, in] to [in, out]; [out, in, p, p], a convolution of whole patches, to [p p in, out]; a table stays."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0).reshape(-1, len(value))
    return value.T if value.ndim == 2 and name != TABLE else value


def check_places(found: np.ndarray, width: int, path: str | Path) -> None:
    """Raise ValueError unless these [1, n, width] are `places` of a square."""
    side = round(found.shape[1] ** 0.5) if found.ndim == 3 else 0
    if found.shape != (1, side**2, width) or np.abs(found[0] - places(side, side, width)).max() > TOLERANCE:
        raise ValueError(
            f"{path}: {PLACES!r} {list(found.shape)} is not the fixed sines and cosines of a square of patches"
        )


def without_classes(net: DiT, params: Tree) -> tuple[DiT, Tree]:
    """The net that computes what this one computes under its null class, without its sigma."""
    net, params = without_sigma(net, params)
    if net.class_count:
        null, last = params.pop("class")["embedding"][-1], params["time"]["dense_1"]
        params["time"] = {**params["time"], "dense_1": {**last, "bias": last["bias"] + null}}
    return net.clone(class_count=0), params


def without_sigma(net: DiT, params: Tree) -> tuple[DiT, Tree]:
    """The net that computes what this one computes, but for its sigma."""
    params = dict(params)
    if net.learn_sigma:
        params["out"] = {name: first_half(x, net.out_channels) for name, x in params["out"].items()}
    return net.clone(learn_sigma=False), params


def first_half(x: np.ndarray, channels: int) -> np.ndarray:
    """Of [.., p p 2 c], what is of the first c channels of every pixel."""
    return x.reshape(*x.shape[:-1], -1, 2 * channels)[..., :channels].reshape(*x.shape[:-1], -1)
