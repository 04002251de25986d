"""The autoencoder: the regressor of its own source."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.methods.autoencoder import Autoencoder
from soda_jax.methods.regressor import Regressor
from soda_jax.nn.rays import Rays
from tests import tiny


def losses(method, batch, train=False):
    keys = jax.random.split(jax.random.key(0), 16)
    return method.loss(tiny.variables(method), batch, keys, train=train)[0]


def test_it_is_a_regressor_whose_target_is_its_source():
    batch = tiny.batch()
    own, regressor = tiny.regressor(Autoencoder), tiny.regressor(Regressor)
    itself = {**batch, "target": batch["source"]}
    for train in (False, True):
        np.testing.assert_array_equal(losses(own, batch, train), losses(regressor, itself, train))
    assert float(losses(own, batch)) != float(losses(regressor, batch))


def test_a_target_of_another_size_is_the_source_scaled():
    batch = tiny.batch()
    small = {**batch, "target": batch["target"][:, ::2, ::2]}
    own, regressor = tiny.regressor(Autoencoder), tiny.regressor(Regressor)
    scaled = jax.image.resize(jnp.asarray(batch["source"], jnp.float32) / 127.5 - 1, (16, 4, 4, 1), "linear")
    np.testing.assert_allclose(losses(own, small), losses(regressor, {**small, "target": scaled}), rtol=1e-5)


def test_it_is_not_told_a_view():
    with pytest.raises(ValueError, match=r"model\.rays='none'"):
        tiny.regressor(Autoencoder, rays=Rays())
