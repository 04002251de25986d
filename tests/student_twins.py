"""PyTorch twins of MobileNetV2 and the wide residual networks, written from the papers; for tests alone.

Names are those of the Flax modules, as in torch_twins.py. Images are NCHW; a network gives z.
"""

import torch.nn.functional as F
from torch import nn


def rounded(channels, width):
    """Channels of MobileNetV2 at a width: the nearest multiple of 8, halves up, that loses at most a tenth."""
    wanted = channels * width
    nearest = max(8, 8 * int(wanted / 8 + 0.5))
    return nearest if nearest >= 0.9 * wanted else nearest + 8


def normalised(before, features, kernel, stride=1, groups=1):
    """conv and norm, under these names."""
    layer = nn.Sequential()
    fields = {"stride": stride, "padding": kernel // 2, "groups": groups, "bias": False}
    layer.add_module("conv", nn.Conv2d(before, features, kernel, **fields))
    layer.add_module("norm", nn.BatchNorm2d(features))
    return layer


class InvertedResidual(nn.Module):
    def __init__(self, before, after, stride, expansion):
        super().__init__()
        inside = before * expansion
        self.expand = normalised(before, inside, 1) if expansion > 1 else None
        self.depthwise = normalised(inside, inside, 3, stride, groups=inside)
        self.project = normalised(inside, after, 1)
        self.adds = stride == 1 and before == after

    def forward(self, x):
        h = F.relu6(self.expand(x)) if self.expand else x
        h = self.project(F.relu6(self.depthwise(h)))
        return x + h if self.adds else h


class MobileNetV2(nn.Module):
    """The table of the paper: t, c, n, s."""

    TABLE = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2))
    TABLE += ((6, 320, 1, 1),)

    def __init__(self, channels, latent_dim, width, small):
        super().__init__()
        before, self.order = rounded(32, width), []
        self.stem = normalised(channels, before, 3, 1 if small else 2)
        for stage, (t, c, n, s) in enumerate(self.TABLE, start=1):
            for block in range(1, n + 1):
                name, after = f"stage{stage}_block{block}", rounded(c, width)
                self.add_module(name, InvertedResidual(before, after, s if block == 1 else 1, t))
                self.order.append(name)
                before = after
        top = rounded(1280, width) if width > 1 else 1280
        self.last, self.head = normalised(before, top, 1), nn.Linear(top, latent_dim)

    def forward(self, x):
        h = F.relu6(self.stem(x))
        for name in self.order:
            h = getattr(self, name)(h)
        return self.head(F.relu6(self.last(h)).mean((2, 3)))


class PreActivationBlock(nn.Module):
    def __init__(self, before, after, stride):
        super().__init__()
        self.norm0, self.norm1 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv0 = nn.Conv2d(before, after, 3, stride, 1, bias=False)
        self.conv1 = nn.Conv2d(after, after, 3, 1, 1, bias=False)
        self.shortcut = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, x):
        a = F.relu(self.norm0(x))
        h = self.conv1(F.relu(self.norm1(self.conv0(a))))
        return h + (self.shortcut(a) if self.shortcut else x)


class WideResNet(nn.Module):
    def __init__(self, channels, depth, widen, latent_dim):
        super().__init__()
        self.stem, before, self.order = nn.Conv2d(channels, 16, 3, padding=1, bias=False), 16, []
        for stage, features in enumerate((16 * widen, 32 * widen, 64 * widen), start=1):
            for block in range(1, (depth - 4) // 6 + 1):
                stride = 2 if stage > 1 and block == 1 else 1
                self.add_module(f"stage{stage}_block{block}", PreActivationBlock(before, features, stride))
                self.order.append(f"stage{stage}_block{block}")
                before = features
        self.last, self.head = nn.BatchNorm2d(before), nn.Linear(before, latent_dim)

    def forward(self, x):
        h = self.stem(x)
        for name in self.order:
            h = getattr(self, name)(h)
        return self.head(F.relu(self.last(h)).mean((2, 3)))
