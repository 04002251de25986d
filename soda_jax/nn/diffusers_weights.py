"""Weights of diffusers' `UNet2DModel`, under the names and in the layouts of `DDPMUNet`.

The names of the one follow from the names of the other, so that a file is read without knowing its config; what it
does not tell (levels with attention, padding, how time enters) is in the config.json beside it, which is read as the
fields of a network, or refused. Attention is called query, key, value and proj_attn in older files.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from soda_jax.nn.ddpm_layout import LAYOUTS
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


OLDER = {"query": "to_q", "key": "to_k", "value": "to_v", "proj_attn": "to_out.0"}

# What a config.json leaves out, as UNet2DModel has it; and what of it cannot be otherwise here.
USUAL = {
    "block_out_channels": (224, 448, 672, 896),
    "layers_per_block": 2,
    "sample_size": None,
    "dropout": 0.0,
}
USUAL |= {
    "in_channels": 3,
    "out_channels": 3,
    "attention_head_dim": 8,
    "norm_eps": 1e-5,
    "downsample_padding": 1,
}
USUAL |= {"flip_sin_to_cos": True, "freq_shift": 0, "downsample_type": "conv", "upsample_type": "conv"}
USUAL |= {"down_block_types": ("DownBlock2D", *["AttnDownBlock2D"] * 3)}
USUAL |= {"up_block_types": (*["AttnUpBlock2D"] * 3, "UpBlock2D")}
FIXED = {
    "_class_name": "UNet2DModel",
    "act_fn": "silu",
    "center_input_sample": False,
    "mid_block_scale_factor": 1,
}
FIXED |= {"norm_num_groups": 32, "attn_norm_num_groups": None, "time_embedding_type": "positional"}
FIXED |= {"resnet_time_scale_shift": "default", "class_embed_type": None, "num_class_embeds": None}
FIXED |= {"add_attention": True, "mid_block_type": "UNetMidBlock2D"}
RESAMPLES = {"conv": ("conv", "DownBlock2D", "UpBlock2D")}
RESAMPLES |= {"resnet": ("block", "ResnetDownsampleBlock2D", "ResnetUpsampleBlock2D")}
TOLD = ("norm_eps", "downsample_padding", "freq_shift")  # by which a layout is known


def unet_fields(config: Mapping[str, Any]) -> dict[str, Any]:
    """The fields of a `DDPMUNet` that a config.json speaks of. ValueError, naming its key, for another architecture."""
    c = {**USUAL, **FIXED, **config}
    for key, value in FIXED.items():
        require(c[key] == value, key, c[key], f"{value!r}")
    widths = tuple(c["block_out_channels"])
    require(not any(w % widths[0] for w in widths), "block_out_channels", widths, "multiples of the first")
    require(
        c["downsample_type"] in RESAMPLES, "downsample_type", c["downsample_type"], " or ".join(RESAMPLES)
    )
    require(
        c["upsample_type"] == c["downsample_type"], "upsample_type", c["upsample_type"], "downsample_type's"
    )
    resample, down, up = RESAMPLES[c["downsample_type"]]
    attends = tuple(kind == "AttnDownBlock2D" for kind in c["down_block_types"])
    for key, plain, attending, flags in (
        ("down_block_types", down, "AttnDownBlock2D", attends),
        ("up_block_types", up, "AttnUpBlock2D", attends[::-1]),
    ):
        expected = tuple(attending if flag else plain for flag in flags)
        require(tuple(c[key]) == expected and len(expected) == len(widths), key, tuple(c[key]), f"{expected}")
    require(
        c["out_channels"] == c["in_channels"], "out_channels", c["out_channels"], "as many as in_channels"
    )
    fields = {
        "channels": widths[0],
        "multipliers": tuple(w // widths[0] for w in widths),
        "attention": attends,
    }
    fields |= {
        "blocks": c["layers_per_block"],
        "head_channels": c["attention_head_dim"] or 0,
        "resample": resample,
    }
    return {
        **fields,
        "dropout": float(c["dropout"]),
        "layout": layout_name(c),
        "out_channels": c["out_channels"],
    }


def layout_name(c: Mapping[str, Any]) -> str:
    """By its constants. ValueError for others than those of a layout."""
    padding = {"both": 1, "end": 0}
    known = {name: one for name, one in LAYOUTS.items() if one.times and not one.scaled}
    names = {(one.epsilon, padding[one.padding], one.shift): name for name, one in known.items()}
    found = tuple(c[key] for key in TOLD)
    require(found in names, ", ".join(TOLD), found, " or ".join(map(str, names)))
    return names[found]


def require(good: bool, key: str, found: Any, expected: str) -> None:
    """ValueError unless it is good."""
    if not good:
        raise ValueError(
            f"config.json of the U-Net: {key} = {found!r} is not known here, expected {expected}"
        )


def unet_params(state: State, cosines_first: bool = False) -> Tree:
    """The parameters of a `DDPMUNet`. ValueError for a name that is none of its.

    cosines_first: the sinusoid of the net that they are of begins with its cosines (flip_sin_to_cos).
    """
    state = dict(renamed(state, cosines_first))
    levels = 1 + max(int(found["number"] or 0) for found in map(BLOCK.match, state) if found)
    params: Tree = {}
    for name, value in joined(state):
        module, _, kind = name.rpartition(".")
        path, value = place(module, levels), laid_out(value, kind)
        if kind not in ("weight", "bias"):
            raise unknown(name)
        leaf = "bias" if kind == "bias" else "scale" if value.ndim == 1 else "kernel"
        put(params, (*path.split("/"), leaf), value)
    return params


def renamed(state: State, cosines_first: bool) -> Iterator[tuple[str, np.ndarray]]:
    """By the names of today, and for a sinusoid whose sines come first."""
    for name, value in state.items():
        module, _, kind = name.rpartition(".")
        outer, _, last = module.rpartition(".")
        if cosines_first and name == "time_embedding.linear_1.weight":
            value = np.roll(value, value.shape[1] // 2, axis=1)
        older = last in OLDER and ".attentions." in outer
        yield (f"{outer}.{OLDER[last]}.{kind}" if older else name), value


def joined(state: State) -> Iterator[tuple[str, np.ndarray]]:
    """The arrays, the queries, keys and values of an attention as one."""
    for name, value in state.items():
        if ".to_q." in name:
            names = [name.replace(".to_q.", f".to_{kind}.") for kind in "qkv"]
            if missing := [one for one in names if one not in state]:
                raise ValueError(f"the weights lack {', '.join(missing)}")
            three = [state[one] for one in names]
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
        raise unknown(module)
    kind, layer, i = found["kind"], found["layer"], int(found["i"])
    try:
        return f"{block_name(found, levels, i)}{layer_name(kind, layer)}"
    except KeyError:
        raise unknown(module) from None


def unknown(name: str) -> ValueError:
    """Of a name that is none of a U-Net's."""
    return ValueError(f"the weights hold {name!r}, which a UNet2DModel that is known here does not have")


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
