"""A PyTorch twin of ADM's U-Net, written from arXiv 2105.05233; its modules bear the names of the public weights."""

import math

import torch
import torch.nn.functional as F
from torch import nn


class ResBlock(nn.Module):
    """way: "" | "up" | "down"."""

    def __init__(self, before, after, width, way=""):
        super().__init__()
        self.way = way
        self.in_layers = nn.Sequential(
            nn.GroupNorm(32, before), nn.SiLU(), nn.Conv2d(before, after, 3, padding=1)
        )
        self.emb_layers = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * after))
        last = nn.Conv2d(after, after, 3, padding=1)
        self.out_layers = nn.Sequential(nn.GroupNorm(32, after), nn.SiLU(), nn.Dropout(0.1), last)
        self.skip_connection = nn.Identity() if before == after else nn.Conv2d(before, after, 1)

    def sized(self, x):
        if self.way == "down":
            return F.avg_pool2d(x, 2)
        return F.interpolate(x, scale_factor=2, mode="nearest") if self.way else x

    def forward(self, x, e):
        norm, silu, conv = self.in_layers
        h, x = conv(self.sized(silu(norm(x)))), self.sized(x)
        scale, shift = self.emb_layers(e)[:, :, None, None].chunk(2, 1)
        first, *rest = self.out_layers
        h = first(h) * (1 + scale) + shift
        for layer in rest:
            h = layer(h)
        return self.skip_connection(x) + h


class AttentionBlock(nn.Module):
    """new: all queries, then keys, then values; else head by head."""

    def __init__(self, width, new):
        super().__init__()
        self.heads, self.new = width // 64, new
        self.norm, self.qkv = nn.GroupNorm(32, width), nn.Conv1d(width, 3 * width, 1)
        self.proj_out = nn.Conv1d(width, width, 1)

    def forward(self, x, e):
        flat = x.flatten(2)
        three = self.qkv(self.norm(flat))
        if self.new:
            q, k, v = three.unflatten(1, (3, self.heads, 64)).unbind(1)
        else:
            q, k, v = three.unflatten(1, (self.heads, 3, 64)).unbind(2)
        weights = torch.einsum("bgcn,bgcm->bgnm", q, k).div(8).softmax(-1)
        found = torch.einsum("bgnm,bgcm->bgcn", weights, v).flatten(1, 2)
        return x + self.proj_out(found).reshape(x.shape)


class Plain(nn.Conv2d):
    def forward(self, x, e):
        return super().forward(x)


class Row(nn.Sequential):
    def forward(self, x, e):
        for layer in self:
            x = layer(x, e)
        return x


class ADM(nn.Module):
    """attention: one flag a level. NCHW images and whole times; [b, 2c, h, w] with sigma."""

    def __init__(self, channels, multipliers, blocks, attention, classes=0, sigma=True, new=True):
        super().__init__()
        self.channels, width, last = channels, 4 * channels, len(multipliers) - 1
        self.time_embed = nn.Sequential(nn.Linear(channels, width), nn.SiLU(), nn.Linear(width, width))
        if classes:
            self.label_emb = nn.Embedding(classes, width)

        def one(before, after, attends, *more):
            return Row(ResBlock(before, after, width), *[AttentionBlock(after, new)] * attends, *more)

        self.input_blocks, now, kept = (
            nn.ModuleList([Row(Plain(3, channels, 3, padding=1))]),
            channels,
            [channels],
        )
        for level, multiplier in enumerate(multipliers):
            for _ in range(blocks):
                self.input_blocks.append(one(now, channels * multiplier, attention[level]))
                now = channels * multiplier
                kept.append(now)
            if level < last:
                self.input_blocks.append(Row(ResBlock(now, now, width, "down")))
                kept.append(now)
        middle = ResBlock(now, now, width), AttentionBlock(now, new), ResBlock(now, now, width)
        self.middle_block, self.output_blocks = Row(*middle), nn.ModuleList()
        for level in range(last, -1, -1):
            after = channels * multipliers[level]
            for i in range(blocks + 1):
                ups = [ResBlock(after, after, width, "up")] * bool(level and i == blocks)
                self.output_blocks.append(one(now + kept.pop(), after, attention[level], *ups))
                now = after
        out = nn.Conv2d(now, 6 if sigma else 3, 3, padding=1)
        self.out = nn.Sequential(nn.GroupNorm(32, now), nn.SiLU(), out)

    def forward(self, x, time, label=None):
        half = self.channels // 2
        angle = time.double()[:, None] * torch.exp(-math.log(1e4) * torch.arange(half).double() / half)
        e = self.time_embed(torch.cat([angle.cos(), angle.sin()], 1).float())
        e = e if label is None else e + self.label_emb(label)
        kept = []
        for row in self.input_blocks:
            x = row(x, e)
            kept.append(x)
        x = self.middle_block(x, e)
        for row in self.output_blocks:
            x = row(torch.cat([x, kept.pop()], 1), e)
        return self.out(x)


def randomised(module, seed=0):
    """The same module with nothing at its special start."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.normal_(0, (parameter[0].numel() if parameter.ndim > 1 else 10) ** -0.5)
    return module.eval()
