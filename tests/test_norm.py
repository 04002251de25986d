"""Group normalisation: what it makes of its input, and that its statistics are float32."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from soda_jax.nn.norm import EPSILON, GroupNorm, group_norm
from tests.arrays import normal, random_variables


def by_definition(x, groups):
    """Normalise in float64, group by group."""
    parts = np.split(np.float64(x), groups, axis=-1)
    return np.concatenate([normalised(part) for part in parts], -1)


def normalised(part):
    mean, var = part.mean((1, 2, 3), keepdims=True), part.var((1, 2, 3), keepdims=True)
    return (part - mean) / np.sqrt(var + EPSILON)


@pytest.mark.parametrize("groups", [1, 4, 8])
def test_each_group_has_mean_zero_and_variance_one(groups):
    x = 3 * normal(2, 5, 4, 8) + 2
    np.testing.assert_allclose(group_norm(x, groups), by_definition(x, groups), rtol=1e-4, atol=1e-5)


def test_scale_and_shift_come_after_and_may_differ_by_example():
    x = normal(2, 4, 4, 6)
    scale, shift = normal(2, 6, seed=1), normal(2, 6, seed=2)
    expected = by_definition(x, 3) * np.array(scale)[:, None, None] + np.array(shift)[:, None, None]
    np.testing.assert_allclose(group_norm(x, 3, scale, shift), expected, rtol=1e-4, atol=1e-5)


def test_input_scale_and_offset_do_not_matter():
    x = normal(1, 8, 8, 4)
    np.testing.assert_allclose(group_norm(5 * x + 3, 2), group_norm(x, 2), atol=1e-4)


def test_groups_are_the_greatest_common_divisor():
    x = normal(1, 4, 4, 48)
    np.testing.assert_allclose(group_norm(x, 32), by_definition(x, 16), rtol=1e-4, atol=1e-5)


def test_agrees_with_flax():
    x = normal(2, 4, 4, 64)
    variables = random_variables(GroupNorm(), x)
    theirs = nn.GroupNorm(32, epsilon=EPSILON).apply(variables, x)
    np.testing.assert_allclose(GroupNorm().apply(variables, x), theirs, rtol=1e-4, atol=1e-5)


def test_without_affine_there_are_no_parameters():
    x = normal(1, 2, 2, 4)
    assert not jax.tree.leaves(random_variables(GroupNorm(2, affine=False), x))
    np.testing.assert_allclose(
        GroupNorm(2, affine=False).apply({}, x), by_definition(x, 2), rtol=1e-4, atol=1e-5
    )


def test_statistics_of_bfloat16_input_are_float32():
    """In bfloat16 the mean of 4096 values near 10 would be off by much more than this."""
    x = (10 + normal(1, 32, 32, 4)).astype(jnp.bfloat16)
    np.testing.assert_allclose(group_norm(x, 1), by_definition(x, 1), rtol=1e-3, atol=1e-3)


def test_module_returns_its_dtype_and_keeps_float32_parameters(key):
    x = jnp.ones((1, 2, 2, 4), jnp.bfloat16)
    values, variables = jax.eval_shape(GroupNorm(2, dtype=jnp.bfloat16).init_with_output, key, x)
    assert values.dtype == jnp.bfloat16
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}


def test_a_constant_image_stays_finite_with_a_finite_gradient():
    x = jnp.full((1, 4, 4, 4), 7.0)
    values, gradient = jax.value_and_grad(lambda x: group_norm(x, 2).sum())(x)
    assert jnp.isfinite(values) and jnp.isfinite(gradient).all()
