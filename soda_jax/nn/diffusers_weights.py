"""Weights of diffusers' `UNet2DModel`, under the names and in the layouts of `DDPMUNet`.

The names of the one follow from the names of the other, so that a file is read without knowing its config; what the
file does not tell (groups of the last norm, padding of strided convolutions) is a field of the network.
"""

import re
from collections.abc import Iterator, Mapping

import numpy as np

from soda_jax.types import Tree

State = Mapping[str, np.ndarray]  # name -> array, as PyTorch lays it out

RESNET = {"norm1": "norm0", "conv1": "conv0", "time_emb_proj": "time", "norm2": "norm1", "conv2": "conv1"}
RESNET |= {"conv_shortcut": "shortcut"}
ATTENTION = {"group_norm": "attention_norm", "to_out.0": "attention/out"}
PLAIN = {"conv_in": "first", "conv_norm_out": "out_norm", "conv_out": "out_conv"}
PLAIN |= {"time_embedding.linear_1": "time/dense_0", "time_embedding.linear_2": "time/dense_1"}
BLOCK = re.compile(
    r"(?P<way>down_blocks|up_blocks|mid_block)\.((?P<number>\d+)\.)?"
    r"(?P<kind>resnets|attentions|downsamplers|upsamplers)\.(?P<i>\d+)\.(?P<layer>.+)"
)


def unet_params(state: State) -> Tree:
    """The parameters of a `DDPMUNet`. ValueError for a name that is none of its."""
    levels = 1 + max(int(found["number"] or 0) for found in map(BLOCK.match, state) if found)
    params: Tree = {}
    for name, value in joined(state):
        module, _, kind = name.rpartition(".")
        path, value = place(module, levels), laid_out(value, kind)
        leaf = {"bias": "bias", "weight": "scale" if value.ndim == 1 else "kernel"}[kind]
        put(params, (*path.split("/"), leaf), value)
    return params


def joined(state: State) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays, the queries, keys and values of an attention as one."""
    for name, value in state.items():
        if ".to_q." in name:
            three = [state[name.replace(".to_q.", f".to_{kind}.")] for kind in "qkv"]
            yield name.replace(".to_q.", ".qkv."), np.concatenate(three)
        elif ".to_k." not in name and ".to_v." not in name:
            yield name, value


def laid_out(value: np.ndarray, kind: str) -> np.ndarray:
    """[out, in, k, k] to [k, k, in, out], [out, in] to [in, out]."""
    if kind == "weight" and value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.T if value.ndim == 2 else value


def place(module: str, levels: int) -> str:
    """Where `DDPMUNet` keeps a module."""
    if module in PLAIN:
        return PLAIN[module]
    found = BLOCK.fullmatch(module)
    if found is None:
        raise ValueError(f"the weights hold {module!r}, which a UNet2DModel that is known here does not have")
    kind, layer, i = found["kind"], found["layer"], int(found["i"])
    return f"{block_name(found, levels, i)}{layer_name(kind, layer)}"


def block_name(found: re.Match, levels: int, i: int) -> str:
    """`down_0_block1`, ...; levels are counted from the finest, which is the last on the way up."""
    if found["way"] == "mid_block":
        return f"middle_block{i}"
    number = int(found["number"])
    way, level = ("down", number) if found["way"] == "down_blocks" else ("up", levels - 1 - number)
    resamples = found["kind"] in ("downsamplers", "upsamplers")
    return f"{way}_{level}_resample" if resamples else f"{way}_{level}_block{i}"


def layer_name(kind: str, layer: str) -> str:
    """Behind the name of its block; "" for the convolution that resamples by itself."""
    if kind == "attentions":
        return "/" + {**ATTENTION, "qkv": "attention/qkv"}[layer]
    if kind in ("downsamplers", "upsamplers") and layer == "conv":
        return ""
    return "/" + RESNET[layer]


def put(tree: Tree, path: tuple[str, ...], value: np.ndarray) -> None:
    """Into a tree of dictionaries."""
    for name in path[:-1]:
        tree = tree.setdefault(name, {})
    tree[path[-1]] = value
