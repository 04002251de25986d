"""ViT encoders: published sizes, the encoders' contract, and that places matter."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.vit import SIZES, ViT
from tests.arrays import normal, random_variables

IMAGES = jax.ShapeDtypeStruct((2, 32, 32, 3), jnp.float32)


def abstract(net, images=IMAGES):
    """Shapes of ((z, features), variables) without computing."""
    return jax.eval_shape(net.init_with_output, jax.random.key(0), images)


@pytest.mark.parametrize(("variant", "published"), [("Ti", 5_717_416), ("S", 22_050_664), ("B", 86_567_656)])
def test_parameter_counts_are_the_published_ones(variant, published):
    """At 224 px with patch 16 and 1000 outputs, less the class token and 197 learned positions."""
    _, variables = abstract(ViT(variant, 1000, patch=16), jax.ShapeDtypeStruct((1, 224, 224, 3), jnp.float32))
    count = sum(leaf.size for leaf in jax.tree.leaves(variables["params"]))
    assert count == published - 198 * SIZES[variant].width


def test_features_follow_the_encoders_contract():
    (z, features), variables = abstract(ViT("Ti", 7, patch=8, dtype=jnp.bfloat16))
    assert set(features) == {"stem", "pooled", "z"} | {f"block{i}" for i in range(1, 13)}
    assert z.shape == (2, 7) and features["pooled"].shape == (2, 192)
    assert features["block12"].shape == (2, 16, 192) and features["block12"].dtype == jnp.bfloat16
    assert z.dtype == features["pooled"].dtype == jnp.float32
    assert set(variables) == {"params"}
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_patch_must_divide_the_image():
    with pytest.raises(
        ValueError, match=r"data\.source_size: 32x32 .*model\.vit_patch=7; take a multiple of 7"
    ):
        abstract(ViT("Ti", 7, patch=7))


def test_unknown_variant_dies_with_the_key():
    with pytest.raises(ValueError, match=r"model\.encoder='vit_XL'.*vit_Ti"):
        abstract(ViT("XL", 7))


def test_each_token_is_one_patch_and_places_matter():
    net = ViT("Ti", 4)
    image = normal(1, 16, 16, 3)
    swapped = jnp.concatenate([image[:, 8:], image[:, :8]], 1)  # the two rows of patches change places
    variables = random_variables(net, image)
    apply = jax.jit(net.apply)
    (_, one), (_, two) = jax.tree.map(np.array, (apply(variables, image), apply(variables, swapped)))
    places = one["stem"][:, :2] - two["stem"][:, 2:]  # the same patches, so what is left is the places
    np.testing.assert_allclose(places, two["stem"][:, :2] - one["stem"][:, 2:], atol=1e-5)
    assert abs(places).max() > 0.1 and abs(one["z"] - two["z"]).max() > 1e-3
