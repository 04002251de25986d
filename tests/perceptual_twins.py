"""PyTorch twins of Inception-v3 as FID uses it, and of LPIPS with its networks, written from their papers; for tests.

Their modules bear the names of the public files, so that their state dicts are what those files hold.
"""

import torch
import torch.nn.functional as F
from torch import nn


def randomised(module, seed=0):
    """Weights that keep activations in the order of 1, and statistics that matter; in eval form."""
    draws = torch.Generator().manual_seed(seed)
    for name, value in module.state_dict().items():
        if value.ndim > 1:
            value.normal_(0, (2 / value[0].numel()) ** 0.5, generator=draws)
        elif name.endswith(("running_var", "bn.weight")):
            value.uniform_(0.7, 1.4, generator=draws)
        elif value.is_floating_point():
            value.normal_(0, 0.2, generator=draws)
    return module.eval()


class Conv(nn.Module):
    def __init__(self, before, after, kernel, **more):
        super().__init__()
        self.conv = nn.Conv2d(before, after, kernel, bias=False, **more)
        self.bn = nn.BatchNorm2d(after, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)))


class Block(nn.Module):
    """Named convolutions."""

    def __init__(self, **layers):
        super().__init__()
        for name, layer in layers.items():
            self.add_module(name, layer)

    def run(self, x, *names):
        for name in names:
            x = getattr(self, name)(x)
        return x


def mean3(x):
    """Over 3 x 3 pixels, of those that lie inside: a sum divided by how many there are."""
    ones = torch.ones_like(x[:1, :1])
    return 9 * F.avg_pool2d(x, 3, 1, 1) / (9 * F.avg_pool2d(ones, 3, 1, 1))


class A(Block):
    def __init__(self, before, pool):
        super().__init__(
            branch1x1=Conv(before, 64, 1),
            branch5x5_1=Conv(before, 48, 1),
            branch5x5_2=Conv(48, 64, 5, padding=2),
            branch3x3dbl_1=Conv(before, 64, 1),
            branch3x3dbl_2=Conv(64, 96, 3, padding=1),
            branch3x3dbl_3=Conv(96, 96, 3, padding=1),
            branch_pool=Conv(before, pool, 1),
        )

    def forward(self, x):
        double = self.run(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        rest = self.run(x, "branch5x5_1", "branch5x5_2"), double, self.branch_pool(mean3(x))
        return torch.cat([self.branch1x1(x), *rest], 1)


class B(Block):
    def __init__(self):
        super().__init__(
            branch3x3=Conv(288, 384, 3, stride=2),
            branch3x3dbl_1=Conv(288, 64, 1),
            branch3x3dbl_2=Conv(64, 96, 3, padding=1),
            branch3x3dbl_3=Conv(96, 96, 3, stride=2),
        )

    def forward(self, x):
        double = self.run(x, "branch3x3dbl_1", "branch3x3dbl_2", "branch3x3dbl_3")
        return torch.cat([self.branch3x3(x), double, F.max_pool2d(x, 3, 2)], 1)


class C(Block):
    def __init__(self, n):
        row, column = {"kernel": (1, 7), "padding": (0, 3)}, {"kernel": (7, 1), "padding": (3, 0)}
        super().__init__(
            branch1x1=Conv(768, 192, 1),
            branch7x7_1=Conv(768, n, 1),
            branch7x7_2=Conv(n, n, **row),
            branch7x7_3=Conv(n, 192, **column),
            branch7x7dbl_1=Conv(768, n, 1),
            branch7x7dbl_2=Conv(n, n, **column),
            branch7x7dbl_3=Conv(n, n, **row),
            branch7x7dbl_4=Conv(n, n, **column),
            branch7x7dbl_5=Conv(n, 192, **row),
            branch_pool=Conv(768, 192, 1),
        )

    def forward(self, x):
        single = self.run(x, *(f"branch7x7_{i}" for i in (1, 2, 3)))
        double = self.run(x, *(f"branch7x7dbl_{i}" for i in (1, 2, 3, 4, 5)))
        return torch.cat([self.branch1x1(x), single, double, self.branch_pool(mean3(x))], 1)


class D(Block):
    def __init__(self):
        super().__init__(
            branch3x3_1=Conv(768, 192, 1),
            branch3x3_2=Conv(192, 320, 3, stride=2),
            branch7x7x3_1=Conv(768, 192, 1),
            branch7x7x3_2=Conv(192, 192, (1, 7), padding=(0, 3)),
            branch7x7x3_3=Conv(192, 192, (7, 1), padding=(3, 0)),
            branch7x7x3_4=Conv(192, 192, 3, stride=2),
        )

    def forward(self, x):
        crossed = self.run(x, *(f"branch7x7x3_{i}" for i in (1, 2, 3, 4)))
        return torch.cat([self.run(x, "branch3x3_1", "branch3x3_2"), crossed, F.max_pool2d(x, 3, 2)], 1)


class E(Block):
    def __init__(self, before, most):
        row, column = {"kernel": (1, 3), "padding": (0, 1)}, {"kernel": (3, 1), "padding": (1, 0)}
        super().__init__(
            branch1x1=Conv(before, 320, 1),
            branch3x3_1=Conv(before, 384, 1),
            branch3x3_2a=Conv(384, 384, **row),
            branch3x3_2b=Conv(384, 384, **column),
            branch3x3dbl_1=Conv(before, 448, 1),
            branch3x3dbl_2=Conv(448, 384, 3, padding=1),
            branch3x3dbl_3a=Conv(384, 384, **row),
            branch3x3dbl_3b=Conv(384, 384, **column),
            branch_pool=Conv(before, 192, 1),
        )
        self.most = most

    def forward(self, x):
        single, double = self.branch3x3_1(x), self.run(x, "branch3x3dbl_1", "branch3x3dbl_2")
        pooled = F.max_pool2d(x, 3, 1, 1) if self.most else mean3(x)
        parts = [self.branch1x1(x), self.branch3x3_2a(single), self.branch3x3_2b(single)]
        parts += [self.branch3x3dbl_3a(double), self.branch3x3dbl_3b(double), self.branch_pool(pooled)]
        return torch.cat(parts, 1)


class Inception(nn.Module):
    """Images in [-1, 1] to (pooled features, logits)."""

    def __init__(self):
        super().__init__()
        self.Conv2d_1a_3x3 = Conv(3, 32, 3, stride=2)
        self.Conv2d_2a_3x3 = Conv(32, 32, 3)
        self.Conv2d_2b_3x3 = Conv(32, 64, 3, padding=1)
        self.Conv2d_3b_1x1 = Conv(64, 80, 1)
        self.Conv2d_4a_3x3 = Conv(80, 192, 3)
        self.Mixed_5b, self.Mixed_5c, self.Mixed_5d = A(192, 32), A(256, 64), A(288, 64)
        self.Mixed_6a = B()
        self.Mixed_6b, self.Mixed_6c, self.Mixed_6d, self.Mixed_6e = C(128), C(160), C(160), C(192)
        self.Mixed_7a = D()
        self.Mixed_7b, self.Mixed_7c = E(1280, False), E(2048, True)
        self.fc = nn.Linear(2048, 1008)

    def forward(self, x):
        x = self.Conv2d_2b_3x3(self.Conv2d_2a_3x3(self.Conv2d_1a_3x3(x)))
        x = self.Conv2d_4a_3x3(self.Conv2d_3b_1x1(F.max_pool2d(x, 3, 2)))
        x = F.max_pool2d(x, 3, 2)
        for name, layer in self.named_children():
            x = layer(x) if name.startswith("Mixed") else x
        pooled = x.mean((2, 3))
        return pooled, self.fc(pooled)


# LPIPS ------------------------------------------------------------------------------------------------------

RELU, ALEX_POOL, VGG_POOL = "relu", ("pool", 3), ("pool", 2)
ALEX = [(64, 11, 4, 2), RELU, ALEX_POOL, (192, 5, 1, 2), RELU, ALEX_POOL, (384, 3, 1, 1), RELU]
ALEX += [(256, 3, 1, 1), RELU, (256, 3, 1, 1), RELU]
VGG = [(64, 3, 1, 1), RELU] * 2 + [VGG_POOL] + [(128, 3, 1, 1), RELU] * 2 + [VGG_POOL]
VGG += (
    [(256, 3, 1, 1), RELU] * 3
    + [VGG_POOL]
    + [(512, 3, 1, 1), RELU] * 3
    + [VGG_POOL]
    + [(512, 3, 1, 1), RELU] * 3
)
ENDS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}  # number of the layer that a stage ends with


class Backbone(nn.Module):
    """What torchvision's networks call `features`."""

    def __init__(self, kind):
        super().__init__()
        layers, before = [], 3
        for layer in {"alex": ALEX, "vgg": VGG}[kind]:
            if layer == RELU:
                layers.append(nn.ReLU())
            elif layer[0] == "pool":
                layers.append(nn.MaxPool2d(layer[1], 2))
            else:
                layers.append(nn.Conv2d(before, *layer))
                before = layer[0]
        self.features, self.ends = nn.Sequential(*layers), ENDS[kind]

    def forward(self, x):
        found = []
        for number, layer in enumerate(self.features):
            x = layer(x)
            if number in self.ends:
                found.append(x)
        return found


class Head(nn.Module):
    """A dropout, which does nothing in eval form, and a layer without bias."""

    def __init__(self, width):
        super().__init__()
        self.model = nn.Sequential(nn.Dropout(), nn.Conv2d(width, 1, 1, bias=False))


class Heads(nn.Module):
    def __init__(self, widths):
        super().__init__()
        for number, width in enumerate(widths):
            self.add_module(f"lin{number}", Head(width))


def lpips(backbone, heads, a, b):
    """arXiv 1801.03924, equation 1, of images in [-1, 1]."""
    shift = torch.tensor([-0.030, -0.088, -0.188])[:, None, None]
    scale = torch.tensor([0.458, 0.448, 0.450])[:, None, None]
    total = 0
    for number, (x, y) in enumerate(
        zip(backbone((a - shift) / scale), backbone((b - shift) / scale), strict=True)
    ):
        apart = (F.normalize(x, dim=1) - F.normalize(y, dim=1)) ** 2
        total = total + getattr(heads, f"lin{number}").model(apart).mean((1, 2, 3))
    return total
