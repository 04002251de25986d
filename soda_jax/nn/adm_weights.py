"""Weights of ADM (arXiv 2105.05233; files such as 64x64_diffusion.pt), under the names of `DDPMUNet(layout="adm")`.

    net, params = read("64x64_diffusion.pt")            under the mean of its 1000 classes, and without its sigma
    net, params = read("64x64_diffusion.pt", label=207) under one of them

Time and class are added before anything looks at them, so that a class is a bias. A file tells all sizes but the
channels of a head, which are 64 in the models of 64 and 256 pixels, and in which order the queries, keys and values of
the heads lie: "new" (all queries first) in that of 64, "legacy" (head by head) in those of 256.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from soda_jax.nn import torch_weights
from soda_jax.nn.ddpm_unet import DDPMUNet
from soda_jax.nn.diffusers_weights import put
from soda_jax.types import Tree

State = Mapping[str, np.ndarray]  # name -> array, as PyTorch lays it out
Name = tuple[str, str, tuple[int, ...]]  # theirs, ours as a path, shape there

FIRST, TIME, TABLE = "input_blocks.0.0.weight", "time_embed.0.weight", "label_emb.weight"
HEAD = 64  # channels
ORDERS = ("new", "legacy")


@dataclass(frozen=True, kw_only=True)
class Public:
    """What a file of a known architecture does not tell: pixels a side, schedule, order of the heads' parts."""

    side: int
    schedule: str
    order: str


# (channels, multipliers, blocks) of the published models
PUBLIC = {(192, (1, 2, 3, 4), 3): Public(side=64, schedule="cosine", order="new")}
PUBLIC |= {(256, (1, 1, 2, 2, 4, 4), 2): Public(side=256, schedule="linear", order="legacy")}


@dataclass(frozen=True, kw_only=True)
class ADM:
    """A net of the file: what of it is a `DDPMUNet`, and what is left out of that. class_count 0: it knows none."""

    net: DDPMUNet
    class_count: int = 0
    learn_sigma: bool = False

    @property
    def public(self) -> Public | None:
        """None for an architecture that is none of the published ones."""
        return PUBLIC.get((self.net.channels, self.net.multipliers, self.net.blocks))


def read(path: str | Path, order: str | None = None, label: int | None = None) -> tuple[DDPMUNet, Tree]:
    """The network of a file and its parameters. Raises what `torch_weights.read`, `network`, `adm_params` raise."""
    state = torch_weights.read(path)
    adm = network(state, path)
    return adm.net, adm_params(state, adm, order, label, path)


def network(state: State, path: str | Path = "the weights") -> ADM:
    """The network that has arrays of these shapes. ValueError where they do not tell its sizes."""
    for name in (FIRST, TIME, "out.2.bias"):
        if name not in state:
            raise ValueError(
                f"{path} has no {name!r}, only others such as {list(state)[:3]}: give ADM's U-Net"
            )
    count, channels = 1 + numbers(state, "output_blocks"), state[TIME].shape[1]
    ups = [i for i in range(count) for k in (1, 2) if f"output_blocks.{i}.{k}.in_layers.0.weight" in state]
    blocks = ups[0] if ups else count - 1
    firsts = [f"input_blocks.{1 + start}" for start in range(0, count, blocks + 1)]
    widths = [
        len(state[name]) for name in (f"{first}.0.out_layers.3.bias" for first in firsts) if name in state
    ]
    if len(widths) != len(firsts) or count % (blocks + 1) or any(width % channels for width in widths):
        raise ValueError(
            f"{path}: {count} output_blocks, {channels} channels and levels of {widths} are no ADM that is known here"
        )
    image, out = state[FIRST].shape[1], len(state["out.2.bias"])
    net = DDPMUNet(
        channels=channels,
        multipliers=tuple(width // channels for width in widths),
        blocks=blocks,
        attention=tuple(f"{first}.1.norm.weight" in state for first in firsts),
        head_channels=HEAD,
        resample="block",
        layout="adm",
        out_channels=image,
    )
    classes = len(state[TABLE]) if TABLE in state else 0
    return ADM(net=net, class_count=classes, learn_sigma=out == 2 * image)


def numbers(state: State, kind: str) -> int:
    """The largest number of a block of this kind; -1: there is none."""
    return max((int(name.split(".")[1]) for name in state if name.startswith(f"{kind}.")), default=-1)


def adm_params(
    state: State,
    adm: ADM,
    order: str | None = None,
    label: int | None = None,
    path: str | Path = "the weights",
) -> Tree:
    """The parameters of `adm.net`, float32; label None: under the mean of its classes.

    Raises ValueError, naming the key, for an array that is missing, of another shape, or of none of its layers, for a
    class that it has not, and where no order is given and it is none of the published models.
    """
    order = order or (adm.public.order if adm.public else None)
    if order not in ORDERS:
        raise ValueError(
            f"{path}: the parts of the heads lie in which order, {' or '.join(ORDERS)}? FILE,ORDER"
        )
    params: Tree = {}
    wanted = {theirs: (ours, shape) for theirs, ours, shape in layout(adm)}
    for theirs, (ours, shape) in wanted.items():
        value = torch_weights.take(state, theirs, shape, path)
        if order == "legacy" and ".qkv." in theirs:
            value = queries_first(value)
        put(params, tuple(ours.split("/")), laid_out(theirs, value))
    if extra := sorted(state.keys() - wanted.keys()):
        raise ValueError(f"{path} holds {', '.join(map(repr, extra[:3]))}, which this ADM does not have")
    return without_classes(adm, params, label)


def without_classes(adm: ADM, params: Tree, label: int | None) -> Tree:
    """As `DDPMUNet` has them: time's sines first, the class within its bias, no sigma. ValueError for no class."""
    time, half = params["time"], adm.net.channels // 2
    time["dense_0"]["kernel"] = np.roll(time["dense_0"]["kernel"], half, axis=0)
    if label is not None and not 0 <= label < adm.class_count:
        raise ValueError(f"class {label}: this ADM knows {adm.class_count}, counted from 0")
    if adm.class_count:
        table = params.pop("class")["embedding"]
        time["dense_1"]["bias"] = time["dense_1"]["bias"] + (table.mean(0) if label is None else table[label])
    if adm.learn_sigma:
        params["out_conv"] = {name: x[..., : adm.net.out_channels] for name, x in params["out_conv"].items()}
    return params


def queries_first(value: np.ndarray) -> np.ndarray:
    """[heads 3 c, ...] to [3 heads c, ...]."""
    return value.reshape(-1, 3, HEAD, *value.shape[1:]).swapaxes(0, 1).reshape(value.shape)


def laid_out(name: str, value: np.ndarray) -> np.ndarray:
    """[out, in, k, k] to [k, k, in, out], [out, in] and [out, in, 1] to [in, out]; a table stays."""
    if value.ndim == 4:
        return value.transpose(2, 3, 1, 0)
    return value.reshape(value.shape[:2]).T if value.ndim > 1 and name != TABLE else value


def layout(adm: ADM) -> Iterator[Name]:
    """Every parameter."""
    net = adm.net
    e = 4 * net.channels
    yield from layer("time_embed.0", "time/dense_0", (e, net.channels))
    yield from layer("time_embed.2", "time/dense_1", (e, e))
    if adm.class_count:
        yield TABLE, "class/embedding", (adm.class_count, e)
    yield from layer("input_blocks.0.0", "first", (net.channels, net.out_channels, 3, 3))
    for theirs, ours, before, after, attends in blocks_of(net):
        yield from block(theirs, ours, before, after, e)
        if attends:
            outer, _, inner = theirs.rpartition(".")
            yield from attention(f"{outer}.{int(inner) + 1}", ours, after)
    yield from norm("out.0", "out_norm", net.channels)
    out = (2 if adm.learn_sigma else 1) * net.out_channels
    yield from layer("out.2", "out_conv", (out, net.channels * net.multipliers[0], 3, 3))


def blocks_of(net: DDPMUNet) -> Iterator[tuple[str, str, int, int, bool]]:
    """(their name, ours, features before and after, whether attention follows) of every block, in order."""
    widths, last = [net.channels * m for m in net.multipliers], len(net.multipliers) - 1
    width, number, kept = net.channels, 1, [net.channels]
    for level, after in enumerate(widths):
        for i in range(net.blocks + (level < last)):
            down = i == net.blocks
            name = f"down_{level}_resample" if down else f"down_{level}_block{i}"
            yield f"input_blocks.{number}.0", name, width, after, net.attention[level] and not down
            width, number = after, number + 1
            kept.append(width)
    yield "middle_block.0", "middle_block0", width, width, True
    yield "middle_block.2", "middle_block1", width, width, False
    number = 0
    for level in range(last, -1, -1):
        after, attends = widths[level], net.attention[level]
        for i in range(net.blocks + 1):
            yield f"output_blocks.{number}.0", f"up_{level}_block{i}", width + kept.pop(), after, attends
            width = after
            if level and i == net.blocks:
                yield f"output_blocks.{number}.{1 + attends}", f"up_{level}_resample", width, width, False
            number += 1


def block(theirs: str, ours: str, before: int, after: int, e: int) -> Iterator[Name]:
    """(5) of ddpm_unet.py."""
    yield from norm(f"{theirs}.in_layers.0", f"{ours}/norm0", before)
    yield from layer(f"{theirs}.in_layers.2", f"{ours}/conv0", (after, before, 3, 3))
    yield from layer(f"{theirs}.emb_layers.1", f"{ours}/time", (2 * after, e))
    yield from norm(f"{theirs}.out_layers.0", f"{ours}/norm1", after)
    yield from layer(f"{theirs}.out_layers.3", f"{ours}/conv1", (after, after, 3, 3))
    if before != after:
        yield from layer(f"{theirs}.skip_connection", f"{ours}/shortcut", (after, before, 1, 1))


def attention(theirs: str, ours: str, width: int) -> Iterator[Name]:
    """Over pixels."""
    yield from norm(f"{theirs}.norm", f"{ours}/attention_norm", width)
    yield from layer(f"{theirs}.qkv", f"{ours}/attention/qkv", (3 * width, width, 1))
    yield from layer(f"{theirs}.proj_out", f"{ours}/attention/out", (width, width, 1))


def layer(theirs: str, ours: str, shape: tuple[int, ...]) -> Iterator[Name]:
    """Kernel and bias."""
    yield f"{theirs}.weight", f"{ours}/kernel", shape
    yield f"{theirs}.bias", f"{ours}/bias", shape[:1]


def norm(theirs: str, ours: str, width: int) -> Iterator[Name]:
    """Scale and shift."""
    yield f"{theirs}.weight", f"{ours}/scale", (width,)
    yield f"{theirs}.bias", f"{ours}/bias", (width,)
