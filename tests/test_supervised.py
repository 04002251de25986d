"""Training on labels: its loss, and what it is told."""

import jax
import numpy as np
import pytest

from soda_jax.methods.base import Method
from soda_jax.methods.supervised import Supervised
from tests import tiny


def test_the_loss_is_the_sum_of_the_cross_entropies():
    method, batch = tiny.supervised(), tiny.batch()
    assert isinstance(method, Method)
    variables = tiny.variables(method)
    keys = jax.random.split(jax.random.key(0), 16)
    loss, aux = method.loss(variables, batch, keys, train=False)
    z = np.asarray(method.encode(variables, batch["source"])["z"])
    head = variables["params"]["heads"]
    logits = z @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
    expected, right = 0.0, []
    for scores, y in zip(np.split(logits, [2], axis=1), batch["labels"].T, strict=True):
        log = scores - np.log(np.exp(scores).sum(1, keepdims=True))
        expected -= log[np.arange(16), y].mean()
        right.append(np.mean(scores.argmax(1) == y))
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    assert float(aux["metrics"]["accuracy"]) == pytest.approx(np.mean(right))


def test_it_learns_the_labels_of_sixteen_images():
    method = tiny.supervised()
    state, step, batch = tiny.state(method), tiny.step(method), tiny.batch()
    for _ in range(500):
        state, metrics = step(state, batch)
    assert float(metrics["accuracy"]) > 0.9


def test_labels_without_classes_are_refused():
    with pytest.raises(ValueError, match=r"supervised\.classes"):
        Supervised(encoder=tiny.Encoder(), classes=())
