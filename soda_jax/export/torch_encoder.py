"""Reads a bundle of soda_jax with PyTorch; this file needs torch and safetensors, and nothing else of the project.

    from torch_encoder import load
    encoder = load("BUNDLE").eval()
    features = encoder(images)                 # {"z": [b, n], "pooled": [b, m]}, float32

Images are uint8 [b, h, w, c] in 0..255, or floats in [-1, 1]. The encoder is an `nn.Module` whose parameters can be
trained further; `eval()` makes BatchNorm use its stored statistics.
"""

import hashlib
import json
import re
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import nn

FORMAT = 1
NEEDED = {"config.json", "params.safetensors"}
STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STEMS = {"imagenet": (7, 2), "small": (3, 1), "strided": (3, 2)}  # kernel and stride
SIZES = {"Ti": (192, 12, 3), "S": (384, 12, 6), "B": (768, 12, 12)}  # width, blocks, heads
LEAVES = {"kernel": "weight", "scale": "weight", "bias": "bias", "mean": "running_mean", "var": "running_var"}
AXES = {4: (3, 2, 0, 1), 2: (1, 0), 1: (0,)}  # [h, w, in, out] -> [out, in, h, w]; [in, out] -> [out, in]


def load(folder):
    """The encoder of a bundle. ValueError where a file is missing or damaged, or the format is newer."""
    from safetensors.torch import load_file

    folder = Path(folder)
    verify(folder)
    config = json.loads((folder / "config.json").read_text())
    if config["format"] > FORMAT:
        raise ValueError(f"{folder} has format {config['format']}, this file reads {FORMAT}: update soda_jax")
    if config["family"] not in NETWORKS:
        raise ValueError(f"{folder} holds a {config['family']}, this file reads {sorted(NETWORKS)}")
    encoder = Encoder(config)
    encoder.network.load_state_dict(state_dict(load_file(folder / "params.safetensors")))
    return encoder


def verify(folder):
    """Raises ValueError, naming the file, unless all is as MANIFEST.sha256 says."""
    manifest = folder / "MANIFEST.sha256"
    if not manifest.is_file():
        raise ValueError(f"{folder} is no bundle: it has no MANIFEST.sha256")
    text = manifest.read_text(errors="replace")
    found = {name: digest for digest, name in re.findall(r"([0-9a-f]{64})  ([\w./]+)\n", text)}
    if "".join(f"{found[name]}  {name}\n" for name in found) != text or not found.keys() >= NEEDED:
        raise ValueError(f"{manifest} is damaged: copy the bundle again")
    for name, digest in found.items():
        path = folder / name
        if not path.is_file() or hashlib.sha256(path.read_bytes()).hexdigest() != digest:
            raise ValueError(f"{path} is missing or damaged: copy the bundle again")


def state_dict(tensors):
    """The names and axes of Flax as those of PyTorch: "params/stem/conv/kernel" becomes "stem.conv.weight"."""
    found = {}
    for name, tensor in tensors.items():
        *modules, leaf = name.split("/")[1:]
        found[".".join([*modules, LEAVES[leaf]])] = tensor.float().permute(AXES[tensor.ndim]).contiguous()
    return found


class Encoder(nn.Module):
    """`images -> {name: features [b, n]}`. ValueError for images of another size, type or range."""

    def __init__(self, config):
        super().__init__()
        self.config = config
        self.network = NETWORKS[config["family"]](config["image_shape"][2], **config["fields"])

    def forward(self, images):
        x = scaled(images, self.config["image_shape"]).permute(0, 3, 1, 2)
        found = self.network(x)
        return {name: found[name] for name in self.config["features"]}


def scaled(images, shape):
    """float32 in [-1, 1]."""
    if images.ndim != 4 or list(images.shape[1:]) != shape:
        raise ValueError(f"expected images [b, {', '.join(map(str, shape))}], found {list(images.shape)}")
    if images.dtype == torch.uint8:
        return images.float() / 127.5 - 1
    if not images.is_floating_point() or not bool((images.detach().abs() <= 1.01).all()):
        raise ValueError("expected uint8 images in 0..255, or floats in [-1, 1] that are u / 127.5 - 1")
    return images.float()


# Networks: images [b, c, h, w] -> {"pooled", "z"}; their modules bear the names of the Flax modules -----------


class NormalisedConv(nn.Module):
    def __init__(self, before, features, kernel, stride=1):
        super().__init__()
        self.conv = nn.Conv2d(before, features, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(features, eps=1e-5, momentum=0.1)

    def forward(self, x):
        return self.norm(self.conv(x))


class Block(nn.Module):
    """relu(x + f(x)); the stride is on the 3x3 convolution."""

    def __init__(self, before, width, stride, bottleneck):
        super().__init__()
        layout = [(width, 1, 1), (width, 3, stride), (4 * width, 1, 1)]
        layout = layout if bottleneck else [(width, 3, stride), (width, 3, 1)]
        self.count, inside = len(layout), before
        for i, (features, kernel, step) in enumerate(layout):
            self.add_module(f"conv{i}", NormalisedConv(inside, features, kernel, step))
            inside = features
        self.shortcut = None
        if stride > 1 or before != inside:
            self.shortcut = NormalisedConv(before, inside, 1, stride)

    def forward(self, x):
        h = x
        for i in range(self.count):
            h = getattr(self, f"conv{i}")(F.relu(h) if i else h)
        return F.relu((self.shortcut(x) if self.shortcut else x) + h)


class ResNet(nn.Module):
    """ResNet v1.5 (arXiv 1512.03385); `residual_gain` is what training began with, and changes nothing here."""

    def __init__(self, channels, *, depth, latent_dim, width, stem, residual_gain=1.0, pooled_norm=False):
        super().__init__()
        self.pool, self.blocks = stem == "imagenet", []
        self.stem = NormalisedConv(channels, width, *STEMS[stem])
        before = width
        for stage, count in enumerate(STAGES[depth]):
            for block in range(count):
                stride, name = 2 if stage and not block else 1, f"stage{stage + 1}_block{block + 1}"
                self.add_module(name, Block(before, width * 2**stage, stride, depth >= 50))
                before = width * 2**stage * (4 if depth >= 50 else 1)
                self.blocks.append(name)
        self.pooled_norm = nn.BatchNorm1d(before, affine=False) if pooled_norm else nn.Identity()
        self.head = nn.Linear(before, latent_dim)

    def forward(self, x):
        h = F.relu(self.stem(x))
        h = F.max_pool2d(h, 3, 2, 1) if self.pool else h
        for name in self.blocks:
            h = getattr(self, name)(h)
        pooled = h.mean((2, 3))
        return {"pooled": pooled, "z": self.head(self.pooled_norm(pooled))}


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.qkv, self.out = heads, nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        b, n, c = x.shape
        q, k, v = self.qkv(x).reshape(b, n, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        return self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, n, c))


class TransformerBlock(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.norm0, self.norm1 = nn.LayerNorm(width, eps=1e-6), nn.LayerNorm(width, eps=1e-6)
        self.attention = Attention(width, heads)
        self.mlp0, self.mlp1 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        x = x + self.attention(self.norm0(x))
        return x + self.mlp1(F.gelu(self.mlp0(self.norm1(x)), approximate="tanh"))


class ViT(nn.Module):
    """Vision transformer (arXiv 2010.11929), pre-norm, mean of the tokens."""

    def __init__(self, channels, *, variant, latent_dim, patch):
        super().__init__()
        width, self.depth, heads = SIZES[variant]
        self.patch, self.embed = patch, nn.Linear(channels * patch**2, width)
        for i in range(self.depth):
            self.add_module(f"block{i + 1}", TransformerBlock(width, heads))
        self.norm, self.head = nn.LayerNorm(width, eps=1e-6), nn.Linear(width, latent_dim)

    def forward(self, x):
        b, c, height, width = x.shape
        p, rows, columns = self.patch, height // self.patch, width // self.patch
        grid = x.reshape(b, c, rows, p, columns, p).permute(0, 2, 4, 3, 5, 1)
        h = self.embed(grid.reshape(b, rows * columns, p * p * c))
        h = h + positions(rows, columns, h.shape[-1]).to(h)
        for i in range(self.depth):
            h = getattr(self, f"block{i + 1}")(h)
        pooled = self.norm(h).mean(1)
        return {"pooled": pooled, "z": self.head(pooled)}


def positions(rows, columns, width):
    """Sinusoids of a patch's row, then of its column (arXiv 1706.03762)."""
    quarter = width // 4
    omega = 10000.0 ** (-torch.arange(quarter, dtype=torch.float64) / quarter)

    def waves(count):
        angle = torch.arange(count)[:, None] * omega
        return torch.cat([angle.cos(), angle.sin()], -1)

    grid = (rows, columns, width // 2)
    both = [waves(rows)[:, None].expand(grid), waves(columns)[None].expand(grid)]
    return torch.cat(both, -1).reshape(rows * columns, width).float()


NETWORKS = {"resnet": ResNet, "vit": ViT}
