"""The numbers of the first three steps, as they have always been.

They pin all between the seed and the update: initial values, draws, schedule, masking, loss, optimiser.
"""

import functools
import json
import os
from pathlib import Path

import jax
import numpy as np
import optax
import pytest

from tests import tiny
from tests.methods import METHODS, OTHERS, SIAMESE

ALL = METHODS | OTHERS | SIAMESE
GOLDEN = Path(__file__).parent / "golden"
RENEW = (
    "The first steps of training have other numbers than before. If you did not mean to change what a seed "
    "trains, find out why. If you did, say so in CHANGELOG.md (old seeds then give other models) and renew "
    "the file with: UPDATE_GOLDEN=1 python -m pytest tests/test_golden_step.py"
)


def three_steps(method):
    state = jax.jit(functools.partial(tiny.create_state, method=method))(jax.random.key(0))
    rows = []
    for i in range(3):
        state, metrics = tiny.step(method)(state, tiny.batch(seed=i))
        row = {"loss": metrics["loss"], "grad_norm": metrics["grad_norm"]}
        trees = {"params": state.params, "ema": state.ema_params, "second_moments": state.opt_state[1].nu}
        rows.append({**row, **{name: optax.tree.norm(tree) for name, tree in trees.items()}})
    return [{name: float(x) for name, x in row.items()} for row in jax.device_get(rows)]


@pytest.mark.parametrize("name", ALL)
def test_the_first_steps_have_the_numbers_they_always_had(name):
    found, path = three_steps(ALL[name]), GOLDEN / f"{name}_steps.json"
    if os.environ.get("UPDATE_GOLDEN"):
        path.write_text(json.dumps(found, indent=2) + "\n")
    expected = json.loads(path.read_text())
    for row, wanted in zip(found, expected, strict=True):
        assert row.keys() == wanted.keys(), RENEW
        np.testing.assert_allclose(list(row.values()), list(wanted.values()), rtol=1e-4, err_msg=RENEW)
