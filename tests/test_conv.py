"""The convolution against its definition, and the reshapes against each other."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.conv import (
    Conv,
    channels_by_sum,
    channels_by_xla,
    convolve,
    convolve_by_product,
    convolve_by_xla,
    convolve_channels,
    depth_to_space,
    max_pool,
    pool_by_maxima,
    pool_by_windows,
    space_to_depth,
    upsample,
)
from tests.arrays import normal, random_variables


def by_definition(x, kernel, stride):
    """The sum over the window around each output pixel, in float64."""
    pad = kernel.shape[0] // 2
    padded = np.pad(np.float64(x), [(0, 0), (pad, pad), (pad, pad), (0, 0)])
    windows = np.lib.stride_tricks.sliding_window_view(padded, kernel.shape[:2], axis=(1, 2))
    return np.einsum("bhwcij,ijco->bhwo", windows[:, ::stride, ::stride], np.float64(kernel))


@pytest.mark.parametrize(
    ("kernel", "stride", "size"), [(1, 1, 6), (1, 2, 7), (3, 1, 6), (3, 2, 6), (3, 2, 7), (7, 2, 8)]
)
def test_convolution_is_the_sum_over_windows(kernel, stride, size):
    x, weights = normal(2, size, size, 3), normal(kernel, kernel, 3, 4, seed=1)
    np.testing.assert_allclose(
        convolve(x, weights, stride), by_definition(x, weights, stride), rtol=1e-4, atol=1e-4
    )


@pytest.mark.parametrize(
    ("kernel", "stride", "size"), [(1, 2, 7), (3, 1, 2), (3, 2, 4), (3, 2, 5), (7, 2, 8)]
)
def test_both_ways_to_convolve_and_their_gradients_agree(kernel, stride, size):
    x, weights = normal(2, size, size, 3), normal(kernel, kernel, 3, 4, seed=1)

    def with_gradients(way):
        y, pull = jax.vjp(lambda *args: way(*args, stride), x, weights)
        return y, pull(jnp.cos(y))

    jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4),
        with_gradients(convolve_by_product),
        with_gradients(convolve_by_xla),
    )


@pytest.mark.parametrize(("kernel", "stride", "size"), [(3, 1, 4), (3, 2, 5), (5, 2, 6)])
def test_a_filter_for_each_channel(kernel, stride, size):
    """Both ways are the convolution of every channel by itself; and so are their gradients of each other's."""
    x, weights = normal(2, size, size, 3), normal(kernel, kernel, 1, 3, seed=1)
    alone = [by_definition(x[..., c : c + 1], weights[..., c : c + 1], stride) for c in range(3)]

    def with_gradients(way):
        y, pull = jax.vjp(lambda *args: way(*args, stride), x, weights)
        return y, pull(jnp.cos(y))

    ways = [with_gradients(way) for way in (channels_by_sum, channels_by_xla, convolve_channels)]
    np.testing.assert_allclose(ways[0][0], np.concatenate(alone, -1), rtol=1e-4, atol=1e-4)
    for way in ways[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), way, ways[0])


def test_few_pixels_are_a_matrix_product_on_a_cpu_and_a_convolution_elsewhere():
    function, arguments = jax.jit(lambda x, k: convolve(x, k, 1)), (normal(2, 2, 2, 3), normal(3, 3, 3, 4))
    assert (
        "stablehlo.convolution" not in function.trace(*arguments).lower(lowering_platforms=("cpu",)).as_text()
    )
    assert "stablehlo.convolution" in function.trace(*arguments).lower(lowering_platforms=("tpu",)).as_text()


@pytest.mark.parametrize("sides", [(6, 8), (7, 5), (1, 2)])
@pytest.mark.parametrize("way", [max_pool, pool_by_maxima])
def test_the_greatest_of_each_window_gets_the_gradient(way, sides):
    """Also where all are below 0, which a padding of zeros would hide."""
    x, h2, w2 = normal(2, *sides, 3) - 2.0, *(-(-side // 2) for side in sides)
    padded = np.pad(x, [(0, 0), (1, 1), (1, 1), (0, 0)], constant_values=-np.inf)
    y, pull = jax.vjp(way, x)
    pulled, expected = np.array(pull(jnp.cos(y))[0]), np.zeros_like(padded)
    for b, i, j, c in np.ndindex(2, h2, w2, 3):
        window = padded[b, 2 * i : 2 * i + 3, 2 * j : 2 * j + 3, c]
        assert y[b, i, j, c] == window.max()
        row, column = np.unravel_index(window.argmax(), (3, 3))
        expected[b, 2 * i + row, 2 * j + column, c] += np.cos(window.max())
    np.testing.assert_allclose(pulled, expected[:, 1:-1, 1:-1], atol=1e-6)


def test_behind_a_relu_both_ways_to_pool_agree():
    """Where zeros are the greatest, one way lets all of them share a gradient, and the ReLU lets none through."""

    def gradient(way):
        return jax.grad(lambda x: jnp.sum(way(jax.nn.relu(x)) ** 2))(x)

    x = normal(2, 9, 9, 3) - 1.5
    assert np.mean(pool_by_maxima(jax.nn.relu(x)) == 0) > 0.1
    np.testing.assert_allclose(gradient(pool_by_maxima), gradient(pool_by_windows), atol=1e-6)


def test_the_maximum_is_by_slices_on_a_cpu_and_of_windows_elsewhere():
    function, x = jax.jit(max_pool), normal(2, 4, 4, 3)
    assert "reduce_window" not in function.trace(x).lower(lowering_platforms=("cpu",)).as_text()
    assert "reduce_window" in function.trace(x).lower(lowering_platforms=("tpu",)).as_text()


def test_module_convolves_and_adds_its_bias():
    x = normal(1, 4, 4, 2)
    variables = random_variables(Conv(3), x)
    kernel, bias = variables["params"]["kernel"], variables["params"]["bias"]
    expected = by_definition(x, kernel, 1) + np.array(bias)
    np.testing.assert_allclose(Conv(3).apply(variables, x), expected, rtol=1e-4, atol=1e-5)


def test_without_bias_there_is_only_a_kernel(key):
    params = jax.eval_shape(Conv(3, 5, use_bias=False).init, key, jnp.ones((1, 4, 4, 2)))["params"]
    assert {name: value.shape for name, value in params.items()} == {"kernel": (5, 5, 2, 3)}


def test_default_kernel_is_truncated_normal_that_keeps_the_variance(key):
    kernel = Conv(256).init(key, jnp.ones((1, 3, 3, 64)))["params"]["kernel"]
    std = (9 * 64) ** -0.5
    assert kernel.std() == pytest.approx(std, rel=0.02)
    assert abs(kernel).max() < 2.3 * std  # cut at two deviations of the normal before cutting


def test_bfloat16_compute_keeps_float32_parameters(key):
    x = jax.ShapeDtypeStruct((1, 4, 4, 2), jnp.float32)
    y, variables = jax.eval_shape(Conv(3, dtype=jnp.bfloat16).init_with_output, key, x)
    assert {leaf.dtype for leaf in jax.tree.leaves(variables)} == {jnp.dtype("float32")}
    assert y.dtype == jnp.bfloat16


def test_upsampling_repeats_each_pixel():
    x = normal(2, 3, 4, 5)
    np.testing.assert_array_equal(upsample(x), np.array(x).repeat(2, axis=1).repeat(2, axis=2))


@pytest.mark.parametrize("patch", [1, 2, 4])
def test_patches_go_to_depth_and_back(patch):
    x = normal(2, 8, 4, 3)
    deep = space_to_depth(x, patch)
    assert deep.shape == (2, 8 // patch, 4 // patch, 3 * patch**2)
    np.testing.assert_array_equal(depth_to_space(deep, patch), x)


def test_one_deep_pixel_is_one_patch():
    x = normal(1, 4, 6, 3)
    np.testing.assert_array_equal(
        np.array(space_to_depth(x, 2))[0, 1, 2], np.array(x)[0, 2:4, 4:6].reshape(-1)
    )
