"""A PyTorch twin of DiT, written from arXiv 2212.09748; its modules bear the names of the public weights. For tests."""

import math

import torch
import torch.nn.functional as F
from torch import nn


def waves(count):
    """10000^(-k / count), in float64."""
    return torch.exp(-math.log(10000.0) * torch.arange(count, dtype=torch.float64) / count)


def places(side, width):
    """[1, side^2, width]: of each patch, row by row: sines and cosines of its column, then of its row."""
    row, column = torch.meshgrid(torch.arange(side), torch.arange(side), indexing="ij")
    angles = [along.reshape(-1, 1) * waves(width // 4) for along in (column, row)]
    return torch.cat([f(angle) for angle in angles for f in (torch.sin, torch.cos)], 1).float()[None]


class PatchEmbed(nn.Module):
    def __init__(self, channels, width, patch):
        super().__init__()
        self.proj = nn.Conv2d(channels, width, patch, stride=patch)

    def forward(self, x):
        return self.proj(x).flatten(2).transpose(1, 2)


class TimestepEmbedder(nn.Module):
    """Of steps counted from 0."""

    def __init__(self, width):
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(256, width), nn.SiLU(), nn.Linear(width, width))

    def forward(self, step):
        angle = step.double()[:, None] * waves(128)
        return self.mlp(torch.cat([angle.cos(), angle.sin()], 1).float())


class LabelEmbedder(nn.Module):
    def __init__(self, classes, width):
        super().__init__()
        self.embedding_table = nn.Embedding(classes + 1, width)

    def forward(self, label):
        return self.embedding_table(label)


class Attention(nn.Module):
    def __init__(self, width, heads):
        super().__init__()
        self.qkv, self.proj, self.heads = nn.Linear(width, 3 * width), nn.Linear(width, width), heads

    def forward(self, x):
        q, k, v = (part.unflatten(2, (self.heads, -1)).transpose(1, 2) for part in self.qkv(x).chunk(3, 2))
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


class Mlp(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.fc1, self.fc2 = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(x), approximate="tanh"))


def norm(x, shift, scale):
    return F.layer_norm(x, x.shape[-1:], eps=1e-6) * (1 + scale[:, None]) + shift[:, None]


class Block(nn.Module):
    """`latent`: of a section of z, for SODA; None in the public model."""

    def __init__(self, width, heads, section_dim):
        super().__init__()
        self.attn, self.mlp = Attention(width, heads), Mlp(width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 6 * width))
        self.latent = nn.Linear(section_dim, 6 * width, bias=False) if section_dim else None

    def forward(self, x, c, z):
        m = self.adaLN_modulation(c)
        m = m if z is None else m + self.latent(F.silu(z))
        shift, scale, gate, shift2, scale2, gate2 = m.chunk(6, 1)
        x = x + gate[:, None] * self.attn(norm(x, shift, scale))
        return x + gate2[:, None] * self.mlp(norm(x, shift2, scale2))


class FinalLayer(nn.Module):
    def __init__(self, width, features):
        super().__init__()
        self.linear = nn.Linear(width, features)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(width, 2 * width))

    def forward(self, x, c):
        return self.linear(norm(x, *self.adaLN_modulation(c).chunk(2, 1)))


class DiT(nn.Module):
    """NCHW images, steps counted from 0, classes of which the last is the null class; [b, 2c, h, w] with sigma."""

    def __init__(self, side, channels, width, depth, heads, patch, classes=0, sigma=False, section_dim=0):
        super().__init__()
        self.patch, self.out = patch, channels * (2 if sigma else 1)
        self.x_embedder = PatchEmbed(channels, width, patch)
        self.t_embedder = TimestepEmbedder(width)
        self.y_embedder = LabelEmbedder(classes, width) if classes else None
        self.pos_embed = nn.Parameter(places(side // patch, width), requires_grad=False)
        self.blocks = nn.ModuleList(Block(width, heads, section_dim) for _ in range(depth))
        self.final_layer = FinalLayer(width, patch**2 * self.out)

    def forward(self, x, step, label=None, z=None):
        """z: [b, depth, d], a section a block."""
        b, _, height, width = x.shape
        p, tokens = self.patch, self.x_embedder(x) + self.pos_embed
        c = self.t_embedder(step)
        c = c if label is None else c + self.y_embedder(label)
        for k, block in enumerate(self.blocks):
            tokens = block(tokens, c, None if z is None else z[:, k])
        patches = self.final_layer(tokens, c).reshape(b, height // p, width // p, p, p, self.out)
        return torch.einsum("bhwpqc->bchpwq", patches).reshape(b, self.out, height, width)


def randomised(module, seed=0):
    """The same module with nothing at its special start; places stay."""
    torch.manual_seed(seed)
    with torch.no_grad():
        for name, parameter in module.named_parameters():
            if name != "pos_embed":
                fan_in = parameter[0].numel() if parameter.ndim > 1 else 10
                parameter.normal_(0, fan_in**-0.5)
    return module


def state(module):
    """What a public file holds, as numpy."""
    return {name: value.numpy() for name, value in module.state_dict().items()}


def gradients(module):
    """Those of its parameters, and the places, under their public names."""
    named = module.named_parameters()
    return {name: p.detach().numpy() if p.grad is None else p.grad.numpy() for name, p in named}
