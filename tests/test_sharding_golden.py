"""How the largest config lies on a mesh of 8 devices: a change of it is on purpose."""

import os
from pathlib import Path

import jax

from experiments import build
from experiments.configs import soda_imagenet
from experiments.job import initialiser
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import state_shardings
from soda_jax.training import tables

GOLDEN = Path(__file__).parent / "golden" / "sharding_soda_imagenet_64.txt"
RENEW = (
    "If that is on purpose: UPDATE_GOLDEN=1 python -m pytest tests/test_sharding_golden.py; read the diff."
)


def abstract_state():
    """The state of soda_imagenet, in shapes."""
    config = soda_imagenet.get_config("64")
    spec = build.batch_spec(config)
    return jax.eval_shape(initialiser(config, build.method(config, spec), spec))


def test_the_table_is_that_of_the_golden_text_and_an_eighth_is_left_on_a_device():
    state = abstract_state()
    placed = state_shardings(state, make_mesh(1, 8))
    text = tables.sharding_table(state, placed) + "\n"
    if os.environ.get("UPDATE_GOLDEN"):
        GOLDEN.write_text(text)
    assert text == GOLDEN.read_text(), RENEW
    whole, local = tables.state_bytes(state, placed)
    assert local < 1.05 * whole / 8
