"""Eight simulated CPU devices for every test; rank promotion raises; absl flags count as parsed."""

import jax
import pytest
from absl import flags

jax.config.update("jax_num_cpu_devices", 8)
jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()


@pytest.fixture
def key():
    """A typed root key, the same in every test."""
    return jax.random.key(0)
