"""AdaGN against its formula; the table of sections; sizes of the latent that fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.modulation import (
    AdaGN,
    check_latent_size,
    fitting_latent_sizes,
    section_count,
    section_of_layers,
)
from soda_jax.nn.norm import group_norm
from tests.arrays import normal, random_variables

SHAPES = (3, 4, 4, 8), (3, 6), (3, 5)  # features, embedded time, section of z


@pytest.fixture
def inputs():
    return [normal(*shape, seed=i) for i, shape in enumerate(SHAPES)]


@pytest.fixture
def variables(inputs):
    return random_variables(AdaGN(4), *inputs)


def projected(params, features):
    """Scale and shift of a projection, ready to meet [b, h, w, c]."""
    params, x = jax.tree.map(np.float64, params), np.float64(features)
    both = x / (1 + np.exp(-x)) @ params["kernel"] + params["bias"]
    return [part[:, None, None] for part in np.split(both, 2, axis=-1)]


def test_time_comes_first_then_z(inputs, variables):
    h, time, z = inputs
    t_s, t_b = projected(variables["params"]["time"], time)
    z_s, z_b = projected(variables["params"]["latent"], z)
    expected = z_s * (t_s * np.array(group_norm(h, 4)) + t_b) + z_b
    np.testing.assert_allclose(AdaGN(4).apply(variables, *inputs), expected, rtol=1e-4, atol=1e-4)


def test_without_latent_only_time_modulates(inputs):
    h, time, _ = inputs
    variables = random_variables(AdaGN(4), h, time)
    assert set(variables["params"]) == {"time"}
    t_s, t_b = projected(variables["params"]["time"], time)
    np.testing.assert_allclose(
        AdaGN(4).apply(variables, h, time), t_s * np.array(group_norm(h, 4)) + t_b, rtol=1e-4, atol=1e-4
    )


def test_scales_start_at_one_on_average(key):
    """A plain initialisation would give scales of mean 0, and a network that starts as noise."""
    params = AdaGN(32).init(key, jnp.ones((1, 2, 2, 64)), jnp.ones((1, 32)), jnp.ones((1, 10)))["params"]
    features = {"time": normal(500, 32), "latent": normal(500, 10)}
    for name, values in features.items():
        scale, shift = projected(params[name], values)
        assert scale.mean() == pytest.approx(1, abs=0.05) and scale.min() < 0.5
        assert shift.mean() == pytest.approx(0, abs=0.05)


def test_a_masked_section_leaves_the_plain_norm_at_the_start(key, inputs):
    h, time, z = inputs
    variables = AdaGN(4).init(key, *inputs)
    values = AdaGN(4).apply(variables, h, 0 * time, 0 * z)
    np.testing.assert_allclose(values, group_norm(h, 4), rtol=1e-5, atol=1e-5)


def test_a_masked_section_still_contributes_its_bias(inputs, variables):
    h, time, z = inputs
    scale, shift = np.split(np.array(variables["params"]["latent"]["bias"]), 2)
    without = AdaGN(4).apply({"params": {"time": variables["params"]["time"]}}, h, time)
    masked = AdaGN(4).apply(variables, h, time, 0 * z)
    np.testing.assert_allclose(masked, np.array(without) * scale + shift, rtol=1e-4, atol=1e-5)


def test_bfloat16_keeps_float32_parameters_and_nearly_the_values(key, inputs, variables):
    low = AdaGN(4, jnp.bfloat16).apply(variables, *inputs)
    assert low.dtype == jnp.bfloat16
    np.testing.assert_allclose(low, AdaGN(4).apply(variables, *inputs), rtol=0.05, atol=0.1)
    params = jax.eval_shape(AdaGN(4, jnp.bfloat16).init, key, *inputs)
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}


@pytest.mark.parametrize(
    ("levels", "blocks", "grouping", "count"),
    [(4, 2, "per_skip", 13), (3, 1, "per_skip", 7), (4, 2, "per_level", 5), (4, 2, "whole", 1)],
)
def test_section_count(levels, blocks, grouping, count):
    assert section_count(levels, blocks, grouping) == count
    pairing = section_of_layers(levels, blocks, grouping)
    used = {pairing.middle, *pairing.up, *pairing.down} - {None}
    assert used == set(range(count))
    assert len(pairing.up) == len(pairing.down) == levels * (blocks + 1)


def test_tables_of_two_levels_with_one_block():
    per_skip = section_of_layers(2, 1, "per_skip")
    assert (per_skip.down, per_skip.middle, per_skip.up) == ((None, 1, None, 3), 4, (3, 2, 1, 0))
    per_level = section_of_layers(2, 1, "per_level")
    assert (per_level.down, per_level.middle, per_level.up) == ((None, 0, None, 1), 2, (1, 1, 0, 0))
    whole = section_of_layers(2, 1, "whole")
    assert (whole.down, whole.middle, whole.up) == ((None, 0, None, 0), 0, (0, 0, 0, 0))


@pytest.mark.parametrize(
    ("dim", "expected"),
    [(130, (130, 130)), (128, (117, 130)), (5, (13, 13)), (131, (130, 143)), (13, (13, 13))],
)
def test_fitting_sizes_surround_the_wish(dim, expected):
    assert fitting_latent_sizes(dim, 13) == expected


def test_unfitting_latent_names_the_key_and_the_sizes_that_fit():
    check_latent_size(130, 13)
    with pytest.raises(ValueError, match=r"model\.latent_dim=128 .*13 equal sections: 117 and 130 fit"):
        check_latent_size(128, 13)
    with pytest.raises(ValueError, match=r"model\.latent_dim=5 .*: 13 fits"):
        check_latent_size(5, 13)


def test_in_bfloat16_only_the_products_are_rounded(inputs, variables):
    """A scale near 1 would be rounded to 1/128. Products and the result are bfloat16 here, all between is float32."""
    h, time, z = inputs
    parts = []
    for name, features in (("time", time), ("latent", z)):
        params = variables["params"][name]
        product = jax.nn.silu(features).astype(jnp.bfloat16) @ params["kernel"].astype(jnp.bfloat16)
        parts += jnp.split(product.astype(jnp.float32) + params["bias"][None], 2, axis=-1)
    t_scale, t_shift, z_scale, z_shift = parts
    expected = group_norm(h, 4, z_scale * t_scale, z_scale * t_shift + z_shift).astype(jnp.bfloat16)
    np.testing.assert_array_equal(AdaGN(4, jnp.bfloat16).apply(variables, h, time, z), expected)
    nothing = jax.tree.map_with_path(lambda path, x: x * (path[-1].key == "bias"), variables)
    low, whole = (AdaGN(4, dtype).apply(nothing, h, time, z) for dtype in (jnp.bfloat16, jnp.float32))
    np.testing.assert_array_equal(low, whole.astype(jnp.bfloat16))
