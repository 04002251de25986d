"""Which section of z steers which block, found out from what the network does.

The gradient of a block's z projection is an outer product with SiLU(section): if every section but one is zero,
it is zero in every block that reads another section. And the number of channels that a block on the way up takes
in tells which skip it took, if every skip has its own number.
"""

from functools import partial

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.unet import UNet
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


def net(levels, blocks, grouping):
    """A U-Net that is small in everything but its number of sections."""
    return UNet(
        channels=4,
        multipliers=(1,) * levels,
        blocks=blocks,
        attention=(False,) * levels,
        grouping=grouping,
        groups=2,
    )


def steered_blocks(net):
    """For each section, the blocks whose z projection has a gradient when the other sections are zero."""
    size = 2 ** (len(net.multipliers) - 1)
    xt, t, z = normal(1, size, size, 3), jnp.array([0.3]), normal(1, net.sections, 3, seed=1)
    params = random_variables(net, xt, t, z)["params"]

    def loss(params, section):
        only = z * (jnp.arange(net.sections) == section)[None, :, None]
        prediction, _ = net.apply({"params": params}, xt, t, only)
        return jnp.square(prediction).sum()

    gradients = jax.jit(jax.vmap(jax.grad(loss), (None, 0)))(params, jnp.arange(net.sections))
    moved = {
        name: np.abs(layer["norm1"]["latent"]["kernel"]).max((1, 2)) > 0
        for name, layer in gradients.items()
        if "norm1" in layer
    }
    return [{name for name, by in moved.items() if by[i]} for i in range(net.sections)]


def test_a_section_steers_the_maker_and_the_taker_of_its_skip():
    """A section of a skip that a convolution made steers the taker alone; the last one steers the middle."""
    expected = [{name for name in pair if name} for pair in PAIRS]
    assert steered_blocks(net(4, 2, "per_skip")) == [*expected, MIDDLE]


def test_per_level_a_section_steers_all_blocks_of_its_level():
    levels = [{f"down_{i}_block0", f"up_{i}_block0", f"up_{i}_block1"} for i in range(2)]
    assert steered_blocks(net(2, 1, "per_level")) == [*levels, MIDDLE]


def test_whole_is_one_section_for_all_blocks():
    down_and_up = {"down_0_block0", "down_1_block0"} | {f"up_{i}_block{j}" for i in (0, 1) for j in (0, 1)}
    assert steered_blocks(net(2, 1, "whole")) == [down_and_up | MIDDLE]


def test_each_block_on_the_way_up_takes_the_skip_of_its_pair():
    """Skip i is given 100 (i + 1) channels; what a block takes in beyond the 4 from below is its skip."""
    unet = net(4, 2, "per_skip")
    skips = [jnp.zeros((1, 8 >> i // 3, 8 >> i // 3, 100 * (i + 1))) for i in range(12)]

    @nn.compact
    def ascend(unet):
        run = partial(unet.block, time=jnp.zeros((1, 16)), z=None, train=False)
        return unet.ascend(jnp.zeros((1, 1, 1, 4)), skips, run)

    init = partial(unet.init, method=ascend)
    params = jax.eval_shape(init, jax.random.key(0))["params"]
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
