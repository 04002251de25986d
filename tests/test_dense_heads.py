"""Dense heads: a twin in PyTorch, sizes on every encoder, what they may look at."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.ddpm_unet import Tapped
from soda_jax.nn.dense_heads import HeatMapHead, SegmentationHead, as_map, maps_of, resized
from soda_jax.nn.dit import TappedDiT
from soda_jax.nn.mobilenet import MobileNetV2
from soda_jax.nn.resnet import ResNet
from soda_jax.nn.vit import ViT
from soda_jax.nn.wide_resnet import WideResNet


def drawn(head, images, maps, seed=0):
    """Variables of the shapes of `init`, all drawn: scales and statistics too, away from zero."""
    rng = np.random.default_rng(seed)
    abstract = jax.eval_shape(lambda key: head.init(key, images, maps, train=False), jax.random.key(0))

    def draw(path, leaf):
        if path[-1].key in ("scale", "var"):
            return jnp.asarray(rng.uniform(0.5, 1.5, leaf.shape), jnp.float32)
        return jnp.asarray(
            rng.normal(size=leaf.shape) * max(np.prod(leaf.shape[:-1]), 1) ** -0.5, jnp.float32
        )

    return jax.tree.map_with_path(draw, abstract)


def inputs(seed=0, side=16, sizes=((4, 5), (2, 7))):
    """Images, and maps of these sides and channels."""
    rng = np.random.default_rng(seed)
    images = jnp.asarray(rng.normal(size=(2, side, side, 3)), jnp.float32)
    return images, [jnp.asarray(rng.normal(size=(2, h, h, c)), jnp.float32) for h, c in sizes]


class Twin:
    """What both heads are made of, on NCHW tensors, by the names of our parameters."""

    def __init__(self, torch, variables):
        self.torch, self.f = torch, torch.nn.functional
        self.params, self.stats = (jax.tree.map(self.tensor, variables[k]) for k in ("params", "batch_stats"))

    def tensor(self, x):
        return self.torch.from_numpy(np.array(x))

    def image(self, x):
        return self.tensor(x).permute(0, 3, 1, 2)

    def norm(self, x, scales, stats):
        return self.f.batch_norm(x, stats["mean"], stats["var"], scales["scale"], scales["bias"], eps=1e-5)

    def conv(self, x, name, stride=1):
        kernel = self.params[name]["conv"]["kernel"].permute(3, 2, 0, 1)
        x = self.f.conv2d(x, kernel, stride=stride, padding=kernel.shape[-1] // 2)
        return self.norm(x, self.params[name]["norm"], self.stats[name]["norm"])

    def linear(self, x, name):
        p = self.params[name]
        return self.f.conv2d(x, p["kernel"].permute(3, 2, 0, 1), p["bias"])

    def larger(self, x, side):
        return self.f.interpolate(x, (side, side), mode="bilinear", align_corners=False)

    def segment(self, images, maps):
        mean, relu = (lambda x: x.mean((2, 3), keepdim=True)), self.torch.relu
        spatial = relu(self.conv(relu(self.conv(images, "spatial0", 2)), "spatial"))
        carried = relu(self.linear(mean(maps[-1]), "whole"))
        for i in (1, 0):
            h = relu(self.conv(maps[i], f"refine{i}"))
            h = h * self.torch.sigmoid(self.linear(mean(h), f"attend{i}"))
            h = h + (carried if i else self.larger(carried, h.shape[-1]))
            carried = relu(self.conv(h, f"carry{i}"))
        both = self.torch.cat([spatial, self.larger(carried, spatial.shape[-1])], 1)
        f = relu(self.conv(both, "fuse"))
        f = f + f * self.torch.sigmoid(self.linear(relu(self.linear(mean(f), "fuse_in")), "fuse_out"))
        return self.larger(self.linear(relu(self.conv(f, "answer_conv")), "answer"), images.shape[-1])

    def whole_kernel(self, name):
        """[c, features, 4, 4] of what is kept by even and odd rows and columns."""
        parts = self.params[name]["kernel"]
        width = parts.shape[-1] // 4
        whole = self.torch.zeros(parts.shape[2], width, 4, 4)
        for i, j, a, b in np.ndindex(2, 2, 2, 2):
            first = (2 * a + b) * width
            whole[:, :, 3 - 2 * i - a, 3 - 2 * j - b] = parts[i, j, :, first : first + width]
        return whole

    def points(self, maps):
        h = maps[-1]
        for name in ("up0", "up1"):
            h = self.f.conv_transpose2d(h, self.whole_kernel(name), stride=2, padding=1)
            h = self.torch.relu(self.norm(h, self.params[f"{name}_norm"], self.stats[f"{name}_norm"]))
        return self.linear(self.torch.relu(self.conv(h, "last")), "answer")


def test_segmentation_is_that_of_its_twin():
    torch = pytest.importorskip("torch")
    head, (images, maps) = SegmentationHead(classes=3, width=6, stride=2), inputs()
    variables = drawn(head, images, maps)
    logits, early = head.apply(variables, images, maps, train=False)
    twin = Twin(torch, variables)
    expected = twin.segment(twin.image(images), [twin.image(x) for x in maps])
    np.testing.assert_allclose(logits, expected.permute(0, 2, 3, 1), atol=1e-4)
    assert early == [] and float(jnp.std(logits)) > 0.1


def test_heat_maps_are_those_of_their_twin():
    torch = pytest.importorskip("torch")
    head, (images, maps) = HeatMapHead(points=4, width=6, stride=2), inputs()
    variables = drawn(head, images, maps)
    found = head.apply(variables, images, maps, train=False)
    twin = Twin(torch, variables)
    expected = twin.points([twin.image(x) for x in maps])
    np.testing.assert_allclose(found, expected.permute(0, 2, 3, 1), atol=1e-4)
    assert found.shape == (2, 8, 8, 4) and float(jnp.std(found)) > 0.1


ENCODERS = {
    "resnet18": (ResNet(depth=18, width=4, latent_dim=6, stem="imagenet"), [(2, 16), (1, 32)]),
    "resnet50": (ResNet(depth=50, width=2, latent_dim=6, stem="small"), [(8, 32), (4, 64)]),
    "vit": (ViT(variant="Ti", patch=8, latent_dim=6), [(4, 192), (4, 192)]),
    "ddae": (
        Tapped(channels=8, multipliers=(1, 2), blocks=1, attention=(False, False), tap="middle"),
        [(16, 16)],
    ),
    "ddae_dit": (TappedDiT(width=16, depth=2, heads=2, patch=4, tap="block_1"), [(8, 16)]),
    "mobilenetv2": (MobileNetV2(width=0.5, latent_dim=6, stem="small"), [(4, 48), (2, 1280)]),
    "wide_resnet": (WideResNet(depth=10, widen=2, latent_dim=6), [(16, 64), (8, 128)]),
}


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_has_maps_for_both_heads(name):
    """In shapes: as many pixels as the image, or as it has strides, whatever the maps' sizes."""
    encoder, sizes = ENCODERS[name]
    images = jnp.zeros((2, 32, 32, 3))

    def run(key):
        (_, features), _ = encoder.init_with_output(key, images, train=False)
        maps = maps_of(encoder, features)
        heads = (SegmentationHead(classes=5, width=8, stride=4), HeatMapHead(points=7, width=8, stride=4))
        answers = [head.init_with_output(key, images, maps, train=False)[0] for head in heads]
        return maps, answers

    maps, ((logits, early), points) = jax.eval_shape(run, jax.random.key(0))
    assert [(x.shape[1], x.shape[-1]) for x in maps] == sizes
    assert logits.shape == (2, 32, 32, 5) and points.shape == (2, 8, 8, 7)
    assert [x.shape for x in early] == [(2, 32, 32, 5)] * len(maps)


def test_early_answers_come_in_training_alone_and_statistics_move_there():
    head, (images, maps) = SegmentationHead(classes=3, width=6, stride=2), inputs()
    variables = drawn(head, images, maps)
    (_, early), new = head.apply(variables, images, maps, train=True, mutable=["batch_stats"])
    assert [x.shape for x in early] == [(2, 16, 16, 3)] * 2
    before, after = variables["batch_stats"], new["batch_stats"]
    moved = jax.tree.map(lambda a, b: bool(jnp.any(a != b)), before, after)
    assert all(jax.tree.leaves(moved))


def test_the_spatial_path_knows_places_that_the_maps_do_not():
    """A pixel of the image changes the answer around it most, though the maps are as they were."""
    head, (images, maps) = SegmentationHead(classes=3, width=6, stride=2), inputs()
    variables = drawn(head, images, maps)
    other = images.at[:, 3, 12].add(5.0)
    plain, changed = (head.apply(variables, x, maps, train=False)[0] for x in (images, other))
    apart = jnp.abs(plain - changed).sum((0, 3))
    assert apart[3, 12] > 10 * apart[13, 2]


def test_tokens_become_the_grid_that_they_were():
    grid = jnp.arange(2 * 9 * 4, dtype=jnp.float32).reshape(2, 3, 3, 4)
    np.testing.assert_array_equal(as_map(grid.reshape(2, 9, 4)), grid)
    assert as_map(grid) is grid and resized(grid, (3, 3)) is grid
