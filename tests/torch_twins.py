"""PyTorch twins of the networks and of SODA's loss, written from the papers; for tests alone. ResNets: `torch_encoder`.

Their modules bear the names of the Flax modules, so that one rule carries weights and gradients across:
"a/b/kernel" becomes "a.b.weight" with its axes in PyTorch's order. Images are NCHW here.
"""

import math

import jax
import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from soda_jax.export import torch_encoder


def carried(tree):
    """A Flax tree of parameters, statistics or gradients as {torch name: tensor}."""
    named = {}
    for path, leaf in jax.tree.leaves_with_path(tree):
        *modules, last = (entry.key for entry in path)
        array = np.array(leaf).transpose(torch_encoder.AXES[leaf.ndim])
        named[".".join([*modules, torch_encoder.LEAVES[last]])] = torch.from_numpy(
            np.ascontiguousarray(array)
        )
    return named


def load(module, *trees):
    """Put Flax trees into a twin; every parameter and statistic must be given, and nothing else."""
    module.load_state_dict({name: value for tree in trees for name, value in carried(tree).items()})
    return module


def images(array):
    """NHWC array to NCHW tensor."""
    return torch.from_numpy(np.array(array).transpose(0, 3, 1, 2).copy())


class ResNet18(torch_encoder.ResNet):
    """With the stem of large images (7x7, stride 2, max-pool) or of small ones (3x3); z alone."""

    def __init__(self, channels, latent_dim, width, small):
        stem = "small" if small else "imagenet"
        super().__init__(channels, depth=18, latent_dim=latent_dim, width=width, stem=stem)

    def forward(self, x):
        return super().forward(x)["z"]


class TimeEmbedding(nn.Module):
    """SODA's sinusoid with scale 1e-4 and two layers."""

    def __init__(self, width):
        super().__init__()
        waves = torch.arange(width // 2, dtype=torch.float64) / (width // 2)
        self.omega = (1 / (2 * math.pi * 1e-4 * 10000**waves)).float()
        self.dense_0 = nn.Linear(width, 4 * width)
        self.dense_1 = nn.Linear(4 * width, 4 * width)

    def forward(self, t):
        angle = (2 * t - 1)[:, None] * self.omega
        waves = torch.cat([angle.cos(), angle.sin()], 1)
        return self.dense_1(F.silu(self.dense_0(waves)))


def group_norm(groups, features, affine=True):
    return nn.GroupNorm(math.gcd(groups, features), features, eps=1e-5, affine=affine)


class AdaGN(nn.Module):
    """z_s * (t_s * GroupNorm(h) + t_b) + z_b."""

    def __init__(self, features, groups, time_dim, section_dim):
        super().__init__()
        self.norm = group_norm(groups, features, affine=False)
        self.time = nn.Linear(time_dim, 2 * features)
        self.latent = nn.Linear(section_dim, 2 * features)

    def forward(self, h, time, z):
        t_s, t_b = self.time(F.silu(time))[:, :, None, None].chunk(2, dim=1)
        z_s, z_b = self.latent(F.silu(z))[:, :, None, None].chunk(2, dim=1)
        return z_s * (t_s * self.norm(h) + t_b) + z_b


class SelfAttention(nn.Module):
    def __init__(self, features, heads):
        super().__init__()
        self.heads = heads
        self.qkv = nn.Linear(features, 3 * features)
        self.out = nn.Linear(features, features)

    def forward(self, x):
        b, c, h, w = x.shape
        tokens = self.qkv(x.flatten(2).transpose(1, 2))
        q, k, v = tokens.reshape(b, h * w, 3, self.heads, c // self.heads).permute(2, 0, 3, 1, 4)
        mixed = F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, h * w, c)
        return self.out(mixed).transpose(1, 2).reshape(b, c, h, w)


class ResidualBlock(nn.Module):
    def __init__(self, before, features, attend, net):
        super().__init__()
        self.norm0 = group_norm(net.groups, before)
        self.conv0 = nn.Conv2d(before, features, 3, padding=1)
        self.norm1 = AdaGN(features, net.groups, 4 * net.channels, net.section_dim)
        self.conv1 = nn.Conv2d(features, features, 3, padding=1)
        if before != features:
            self.shortcut = nn.Conv2d(before, features, 1)
        if attend:
            self.attention_norm = group_norm(net.groups, features)
            self.attention = SelfAttention(features, net.heads)

    def forward(self, x, time, z):
        h = self.conv0(F.silu(self.norm0(x)))
        h = self.conv1(F.silu(self.norm1(h, time, z)))
        x = ((self.shortcut(x) if hasattr(self, "shortcut") else x) + h) / math.sqrt(2)
        if hasattr(self, "attention"):
            x = (x + self.attention(self.attention_norm(x))) / math.sqrt(2)
        return x


class UNet(nn.Module):
    """With per_skip modulation: a skip travels with the number of its section, and its taker uses both."""

    def __init__(self, image_channels, section_dim, net):
        super().__init__()
        self.channels, self.groups, self.heads = net.channels, net.groups, net.heads
        self.patch, self.blocks, self.section_dim = net.patch, net.blocks, section_dim
        self.widths = [net.channels * multiplier for multiplier in net.multipliers]
        self.time = TimeEmbedding(net.channels)
        skips, before = [], net.channels
        for level, width in enumerate(self.widths):
            inside = image_channels * net.patch**2 if level == 0 else before
            conv = nn.Conv2d(inside, before, 3, stride=2 if level else 1, padding=1)
            self.add_module(f"down_{level}_conv", conv)
            skips.append(before)
            for i in range(net.blocks):
                block = ResidualBlock(before, width, net.attention[level], self)
                self.add_module(f"down_{level}_block{i}", block)
                before = width
                skips.append(before)
        self.middle_block0 = ResidualBlock(before, before, True, self)
        self.middle_block1 = ResidualBlock(before, before, False, self)
        for level, width in reversed(list(enumerate(self.widths))):
            if level < len(self.widths) - 1:
                self.add_module(f"up_{level}_conv", nn.Conv2d(before, before, 3, padding=1))
            for i in range(net.blocks + 1):
                block = ResidualBlock(before + skips.pop(), width, net.attention[level], self)
                self.add_module(f"up_{level}_block{i}", block)
                before = width
        self.out_norm = group_norm(net.groups, before)
        self.out_conv = nn.Conv2d(before, net.out_channels * net.patch**2, 3, padding=1)

    def forward(self, xt, t, z):
        time, p = self.time(t), self.patch
        b, c, height, width = xt.shape
        h = xt.reshape(b, c, height // p, p, width // p, p).permute(0, 3, 5, 1, 2, 4)
        h = h.reshape(b, p * p * c, height // p, width // p)
        skips = []
        for level in range(len(self.widths)):
            h = getattr(self, f"down_{level}_conv")(h)
            skips.append((h, len(skips)))
            for i in range(self.blocks):
                h = getattr(self, f"down_{level}_block{i}")(h, time, z[:, len(skips)])
                skips.append((h, len(skips)))
        h = self.middle_block0(h, time, z[:, len(skips)])
        h = self.middle_block1(h, time, z[:, len(skips)])
        for level in reversed(range(len(self.widths))):
            if level < len(self.widths) - 1:
                h = getattr(self, f"up_{level}_conv")(F.interpolate(h, scale_factor=2, mode="nearest"))
            for i in range(self.blocks + 1):
                skip, section = skips.pop()
                h = getattr(self, f"up_{level}_block{i}")(torch.cat([h, skip], 1), time, z[:, section])
        h = self.out_conv(F.silu(self.out_norm(h)))
        h = h.reshape(b, p, p, -1, height // p, width // p).permute(0, 3, 4, 1, 5, 2)
        return h.reshape(b, -1, height, width)


def alpha_sigma(t, steps=1000, offset=0.008):
    """The inverted cosine schedule in `steps` steps: sqrt(abar) and sqrt(1 - abar) at index t * steps."""
    grid = np.linspace(0, 1, steps + 1)
    raw = 2 * (1 + offset) / np.pi * np.arccos(np.sqrt(grid)) - offset
    abar = np.cumprod(1 - np.minimum(1 - raw[1:] / raw[:-1], 0.999))
    chosen = torch.from_numpy(abar)[(t * steps).round().long() - 1]
    return chosen.sqrt().float(), (1 - chosen).sqrt().float()


class SODA(nn.Module):
    """SODA's loss on given draws: time, noise on the target, noise on the source, mask of the sections."""

    def __init__(self, encoder, denoiser, sections):
        super().__init__()
        self.encoder, self.denoiser, self.sections = encoder, denoiser, sections

    def forward(self, source, target, t, eps, source_noise, keep):
        z = self.encoder(source + source_noise)
        z = z.reshape(len(z), self.sections, -1) * keep[:, :, None]
        alpha, sigma = (x[:, None, None, None] for x in alpha_sigma(t))
        prediction = self.denoiser(alpha * target + sigma * eps, t, z)
        return (eps - prediction).square().mean()
