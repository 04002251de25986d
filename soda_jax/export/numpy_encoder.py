"""Reads a bundle of soda_jax with numpy alone; this file needs nothing else of the project.

    from numpy_encoder import load
    features = load("BUNDLE")(images)          # {"z": [b, n], "pooled": [b, m]}, float32

Images are uint8 [b, h, w, c] in 0..255, or floats in [-1, 1]. For checks and small jobs: it is slow.
"""

import hashlib
import json
import math
import re
from pathlib import Path

import numpy as np

FORMAT = 1
NEEDED = {"config.json", "params.safetensors"}
STAGES = {10: (1, 1, 1, 1), 18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3)}
STEMS = {"imagenet": 2, "small": 1, "strided": 2}  # stride
BLOCKS = {"Ti": (12, 3), "S": (12, 6), "B": (12, 12)}  # blocks, heads


def load(folder):
    """The encoder of a bundle. ValueError where a file is missing or damaged, or the format is newer."""
    folder = Path(folder)
    verify(folder)
    config = json.loads((folder / "config.json").read_text())
    if config["format"] > FORMAT:
        raise ValueError(f"{folder} has format {config['format']}, this file reads {FORMAT}: update soda_jax")
    if config["family"] not in NETWORKS:
        raise ValueError(f"{folder} holds a {config['family']}, this file reads {sorted(NETWORKS)}")
    return Encoder(config, tensors(folder / "params.safetensors"))


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


def tensors(path):
    """name -> float32 array, of a safetensors file: a length, a JSON header, then the numbers."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            low, high = (start + offset for offset in entry["data_offsets"])
            found[name] = numbers(data[low:high], entry["dtype"]).reshape(entry["shape"])
    return found


def numbers(data, dtype):
    """bfloat16 is the upper half of float32."""
    if dtype == "BF16":
        return (np.frombuffer(data, "<u2").astype("<u4") << 16).view("<f4")
    return np.frombuffer(data, {"F32": "<f4"}[dtype])


class Encoder:
    """`images -> {name: features [b, n]}`."""

    def __init__(self, config, weights):
        self.config, self.weights = config, weights

    def __call__(self, images):
        x = scaled(np.asarray(images), self.config["image_shape"])
        found = NETWORKS[self.config["family"]](self.config["fields"], self.weights, x)
        return {name: found[name] for name in self.config["features"]}


def scaled(images, shape):
    """float32 in [-1, 1]. ValueError for images of another size, type or range."""
    if images.ndim != 4 or list(images.shape[1:]) != shape:
        raise ValueError(f"expected images [b, {', '.join(map(str, shape))}], found {list(images.shape)}")
    if images.dtype == np.uint8:
        return images.astype(np.float32) / np.float32(127.5) - np.float32(1)
    if images.dtype.kind != "f" or not np.all(np.abs(images) <= 1.01):
        raise ValueError("expected uint8 images in 0..255, or floats in [-1, 1] that are u / 127.5 - 1")
    return images.astype(np.float32)


# Networks: (fields, weights, images [b, h, w, c]) -> {"pooled", "z"} -----------------------------------------


def resnet(fields, w, x):
    """ResNet v1.5 (arXiv 1512.03385)."""
    h = np.maximum(normalised(w, "stem", x, STEMS[fields["stem"]]), 0)
    h = max_pool(h) if fields["stem"] == "imagenet" else h
    for stage, blocks in enumerate(STAGES[fields["depth"]], start=1):
        for block in range(1, blocks + 1):
            stride = 2 if stage > 1 and block == 1 else 1
            h = residual(w, f"stage{stage}_block{block}", h, stride, fields["depth"] >= 50)
    return headed(w, h.mean((1, 2)))


def residual(w, name, x, stride, bottleneck):
    """relu(x + f(x)); the stride is on the 3x3 convolution."""
    strides = (1, stride, 1) if bottleneck else (stride, 1)
    h = x
    for i, step in enumerate(strides):
        h = normalised(w, f"{name}/conv{i}", np.maximum(h, 0) if i else h, step)
    shortcut = f"{name}/shortcut"
    return np.maximum((normalised(w, shortcut, x, stride) if has(w, shortcut) else x) + h, 0)


def has(w, name):
    return f"params/{name}/conv/kernel" in w


def normalised(w, name, x, stride):
    """A convolution, then BatchNorm with its stored statistics."""
    norm = {key: w[f"params/{name}/norm/{key}"] for key in ("scale", "bias")}
    norm |= {key: w[f"batch_stats/{name}/norm/{key}"] for key in ("mean", "var")}
    gain = norm["scale"] / np.sqrt(norm["var"] + np.float32(1e-5))
    return convolved(x, w[f"params/{name}/conv/kernel"] * gain, stride) + (norm["bias"] - norm["mean"] * gain)


def convolved(x, kernel, stride):
    """Padding k // 2 on each side."""
    k = kernel.shape[0]
    windows = windows_of(np.pad(x, ((0, 0), (k // 2, k // 2), (k // 2, k // 2), (0, 0))), k, stride)
    return np.tensordot(windows, kernel.transpose(2, 0, 1, 3), axes=3)


def windows_of(x, k, stride):
    """[b, h, w, c, k, k]"""
    return np.lib.stride_tricks.sliding_window_view(x, (k, k), (1, 2))[:, ::stride, ::stride]


def max_pool(x):
    """3x3, stride 2."""
    padded = np.pad(x, ((0, 0), (1, 1), (1, 1), (0, 0)), constant_values=-np.inf)
    return windows_of(padded, 3, 2).max((4, 5))


def vit(fields, w, images):
    """Vision transformer (arXiv 2010.11929), pre-norm, mean of the tokens."""
    p, (blocks, heads) = fields["patch"], BLOCKS[fields["variant"]]
    b, height, width, c = images.shape
    rows, columns = height // p, width // p
    grid = images.reshape(b, rows, p, columns, p, c).transpose(0, 1, 3, 2, 4, 5)
    h = dense(w, "embed", grid.reshape(b, rows * columns, p * p * c))
    h = h + positions(rows, columns, h.shape[-1])
    for i in range(1, blocks + 1):
        h = h + attention(w, f"block{i}/attention", layer_norm(w, f"block{i}/norm0", h), heads)
        inner = gelu(dense(w, f"block{i}/mlp0", layer_norm(w, f"block{i}/norm1", h)))
        h = h + dense(w, f"block{i}/mlp1", inner)
    return headed(w, layer_norm(w, "norm", h).mean(1))


def headed(w, pooled):
    """z is made of the pooled features, or of what BatchNorm makes of them with its stored statistics."""
    mean, var = (w.get(f"batch_stats/pooled_norm/{key}") for key in ("mean", "var"))
    h = pooled if mean is None else (pooled - mean) / np.sqrt(var + np.float32(1e-5))
    return {"pooled": pooled, "z": dense(w, "head", h)}


def dense(w, name, x):
    return x @ w[f"params/{name}/kernel"] + w[f"params/{name}/bias"]


def layer_norm(w, name, x):
    centred = x - x.mean(-1, keepdims=True)
    scaled_ = centred / np.sqrt(np.square(centred).mean(-1, keepdims=True) + np.float32(1e-6))
    return scaled_ * w[f"params/{name}/scale"] + w[f"params/{name}/bias"]


def gelu(x):
    """The tanh form of arXiv 1606.08415."""
    return (
        x
        * np.float32(0.5)
        * (1 + np.tanh(np.float32(math.sqrt(2 / math.pi)) * (x + np.float32(0.044715) * x**3)))
    )


def attention(w, name, x, heads):
    b, n, c = x.shape
    q, k, v = dense(w, f"{name}/qkv", x).reshape(b, n, 3, heads, c // heads).transpose(2, 0, 3, 1, 4)
    scores = q @ k.swapaxes(2, 3) / np.float32(math.sqrt(c // heads))
    scores = np.exp(scores - scores.max(-1, keepdims=True))
    mixed = (scores / scores.sum(-1, keepdims=True)) @ v
    return dense(w, f"{name}/out", mixed.transpose(0, 2, 1, 3).reshape(b, n, c))


def positions(rows, columns, width):
    """Sinusoids of a patch's row, then of its column (arXiv 1706.03762)."""
    quarter = width // 4
    omega = 1 / 10000.0 ** (np.arange(quarter) / quarter)

    def waves(count):
        angle = np.arange(count)[:, None] * omega
        return np.concatenate([np.cos(angle), np.sin(angle)], -1)

    grid = (rows, columns, width // 2)
    both = [np.broadcast_to(waves(rows)[:, None], grid), np.broadcast_to(waves(columns)[None], grid)]
    return np.concatenate(both, -1).reshape(rows * columns, width).astype(np.float32)


NETWORKS = {"resnet": resnet, "vit": vit}
