"""Operations counted by hand, and the share of the peak."""

import jax
import jax.numpy as jnp
import pytest
from flax import linen as nn

from soda_jax.training.flops import forward_flops, peak_flops, training_flops, utilisation


def array(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


def convolve(x, kernel, **options):
    return jax.lax.conv_general_dilated(
        x, kernel, dimension_numbers=("NHWC", "HWIO", "NHWC"), padding="SAME", **options
    )


def test_a_matrix_product():
    assert forward_flops(jnp.matmul, array(4, 8), array(8, 16)) == 2 * 4 * 8 * 16


def test_a_batch_of_products():
    assert forward_flops(lambda a, b: jnp.einsum("bij,bjk->bik", a, b), array(3, 4, 8), array(3, 8, 2)) == (
        2 * 3 * 4 * 8 * 2
    )


def test_convolutions_with_stride_and_groups():
    x = array(2, 8, 8, 6)
    assert forward_flops(lambda x, k: convolve(x, k, window_strides=(1, 1)), x, array(3, 3, 6, 10)) == (
        2 * (2 * 8 * 8 * 10) * (3 * 3 * 6)
    )
    assert forward_flops(lambda x, k: convolve(x, k, window_strides=(2, 2)), x, array(3, 3, 6, 10)) == (
        2 * (2 * 4 * 4 * 10) * (3 * 3 * 6)
    )
    grouped = forward_flops(
        lambda x, k: convolve(x, k, window_strides=(1, 1), feature_group_count=2), x, array(3, 3, 3, 10)
    )
    assert grouped == 2 * (2 * 8 * 8 * 10) * (3 * 3 * 3)


def test_a_loop_counts_as_often_as_it_runs_and_rematerialisation_once():
    def loop(x):
        return jax.lax.scan(lambda h, _: (h @ h, None), x, length=5)[0]

    assert forward_flops(loop, array(4, 4)) == 5 * 2 * 4**3
    assert forward_flops(jax.checkpoint(lambda x: jax.jit(jnp.matmul)(x, x)), array(4, 4)) == 2 * 4**3


def test_a_branch_counts_as_its_longest():
    def branch(p, x):
        return jax.lax.cond(p, lambda x: x @ x, lambda x: x @ x @ x, x)

    assert forward_flops(branch, jax.ShapeDtypeStruct((), bool), array(4, 4)) == 2 * 2 * 4**3


def test_a_network():
    layer = nn.Dense(16)
    variables = jax.eval_shape(layer.init, jax.random.key(0), array(2, 8))
    assert forward_flops(layer.apply, variables, array(2, 8)) == 2 * 2 * 8 * 16


@pytest.mark.parametrize(
    ("kind", "dtype", "peak"),
    [
        ("TPU v4", "bfloat16", 275e12),
        ("TPU v5 lite", "float32", 197e12),
        ("TPU v5p", "bfloat16", 459e12),
        ("TPU v6 lite", "bfloat16", 918e12),
        ("NVIDIA H200", "bfloat16", 989e12),
        ("NVIDIA A100-SXM4-40GB", "float32", 156e12),
        ("NVIDIA L40S", "bfloat16", None),
        ("cpu", "float32", None),
    ],
)
def test_peaks_are_found_by_the_name_of_the_device(kind, dtype, peak):
    assert peak_flops(kind, dtype) == peak


def test_utilisation():
    assert training_flops(7) == 21
    assert utilisation(10**9, 1000.0, 4e12, 2) == pytest.approx(0.125)
