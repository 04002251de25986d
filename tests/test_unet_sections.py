"""Which section of z steers which block, found out from what the network does.

The gradient of a block's z projection is an outer product with SiLU(section): if all sections but one are
zero, it is zero in every block that reads another. And if every skip has its own number of channels, the
number that a block on the way up takes in tells which skip it took.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.unet import ResidualBlock, UNet
from tests.arrays import normal, random_variables

# The pairs of 4 levels with 2 blocks, written out: maker of skip i (None: a convolution) and its taker.
PAIRS = [
    (None, "up_0_block2"),
    ("down_0_block0", "up_0_block1"),
    ("down_0_block1", "up_0_block0"),
    (None, "up_1_block2"),
    ("down_1_block0", "up_1_block1"),
    ("down_1_block1", "up_1_block0"),
    (None, "up_2_block2"),
    ("down_2_block0", "up_2_block1"),
    ("down_2_block1", "up_2_block0"),
    (None, "up_3_block2"),
    ("down_3_block0", "up_3_block1"),
    ("down_3_block1", "up_3_block0"),
]
MIDDLE = {"middle_block0", "middle_block1"}
SKIPS = [f"down/{level}/{layer}" for level in range(4) for layer in ("conv", "block0", "block1")]


def sections_read(net):
    """For each section, the blocks that are handed it: section i holds the number i, which blocks note."""
    inputs = jnp.zeros((1, 8, 8, 3)), jnp.zeros(1), jnp.zeros((1, net.sections, 2))
    variables = random_variables(net, *inputs)
    numbered = inputs[2] + jnp.arange(net.sections, dtype=jnp.float32)[None, :, None]
    read = [set() for _ in range(net.sections)]

    def note(call, args, kwargs, context):
        if not isinstance(context.module, ResidualBlock) or context.method_name != "__call__":
            return call(*args, **kwargs)
        read[int(args[2][0, 0])].add(context.module.name)
        return jnp.zeros((*args[0].shape[:3], context.module.features))

    with nn.intercept_methods(note):
        net.apply(variables, *inputs[:2], numbered)
    return read


def test_a_section_is_read_by_the_maker_and_the_taker_of_its_skip():
    """13 sections for 4 levels of 2 blocks; those of the convolutions' skips have a taker alone."""
    expected = [{name for name in pair if name} for pair in PAIRS]
    assert sections_read(UNet(channels=4, grouping="per_skip")) == [*expected, MIDDLE]


def test_per_level_a_section_is_read_by_all_blocks_of_its_level():
    levels = [{name for pair in PAIRS for name in pair if name and f"_{i}_" in name} for i in range(4)]
    assert sections_read(UNet(channels=4, grouping="per_level")) == [*levels, MIDDLE]


def test_whole_is_one_section_for_all_blocks():
    everywhere = {name for pair in PAIRS for name in pair if name} | MIDDLE
    assert sections_read(UNet(channels=4, grouping="whole")) == [everywhere]


def test_a_section_that_is_not_zero_moves_its_own_blocks_alone():
    """By gradient, through the whole network at once; 2 levels of 1 block have 5 sections."""
    net = UNet(channels=4, multipliers=(1, 1), blocks=1, attention=(False, False), groups=2)
    xt, t, z = normal(1, 2, 2, 3), jnp.array([0.3]), normal(1, net.sections, 3, seed=1)
    params = random_variables(net, xt, t, z)["params"]

    def loss(params, section):
        only = z * (jnp.arange(net.sections) == section)[None, :, None]
        return jnp.square(net.apply({"params": params}, xt, t, only)[0]).sum()

    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, jnp.arange(net.sections))
    moved = [set() for _ in range(net.sections)]
    for name in gradients.keys() & {block for pair in PAIRS for block in pair} | MIDDLE:
        for section in np.flatnonzero(np.abs(gradients[name]["norm1"]["latent"]["kernel"]).max((1, 2))):
            moved[section].add(name)
    assert moved == [
        {"up_0_block1"},
        {"down_0_block0", "up_0_block0"},
        {"up_1_block1"},
        {"down_1_block0", "up_1_block0"},
        MIDDLE,
    ]


def test_each_block_on_the_way_up_takes_the_skip_of_its_pair():
    """Skip i is given 100 (i + 1) channels; what a block takes in beyond the 4 from below is its skip."""

    class WayUp(UNet):
        @nn.compact
        def __call__(self, h, skips):
            run = partial(self.block, time=jnp.zeros((1, 16)), z=None, train=False)
            return self.ascend(h, skips, run)

    skips = [jnp.zeros((1, 8 >> i // 3, 8 >> i // 3, 100 * (i + 1))) for i in range(12)]
    net = WayUp(channels=4, multipliers=(1, 1, 1, 1))
    params = jax.eval_shape(net.init, jax.random.key(0), jnp.zeros((1, 1, 1, 4)), skips)["params"]
    taken = {name: layer["norm0"]["scale"].size - 4 for name, layer in params.items() if "norm0" in layer}
    assert taken == {taker: 100 * (i + 1) for i, (_, taker) in enumerate(PAIRS)}


def test_skips_are_what_the_layers_on_the_way_down_made():
    """In order; `ascend` is handed exactly these activations."""
    names, given = [], []

    class Recorder(UNet):
        def descend(self, h, run):
            features = super().descend(h, run)
            names.extend(features)
            given.extend(features.values())
            return features

        def ascend(self, h, skips, run):
            assert all(skip is feature for skip, feature in zip(skips, given, strict=True))
            return super().ascend(h, skips, run)

    jax.eval_shape(Recorder(channels=4).init, jax.random.key(0), jnp.ones((1, 8, 8, 3)), jnp.ones(1))
    assert names == SKIPS


@pytest.mark.parametrize(("grouping", "count"), [("per_skip", 13), ("per_level", 5), ("whole", 1)])
def test_the_network_says_how_many_sections_it_needs(grouping, count):
    assert UNet(grouping=grouping).sections == count
    with pytest.raises(ValueError, match=rf"z has 7 sections; model\.grouping='{grouping}' needs {count}"):
        jax.eval_shape(
            UNet(grouping=grouping).init,
            jax.random.key(0),
            jnp.ones((1, 8, 8, 3)),
            jnp.ones(1),
            jnp.ones((1, 7, 2)),
        )
