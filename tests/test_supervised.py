"""Training on labels: its loss, and what it is told."""

import jax
import numpy as np
import pytest

from soda_jax.methods.base import Method
from soda_jax.methods.supervised import Supervised
from soda_jax.nn.ddpm_unet import Tapped
from soda_jax.nn.resnet import ResNet
from soda_jax.nn.vit import ViT
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


def test_its_answers_are_the_likeliest_classes_of_the_feature_that_its_heads_see():
    """Heads that look at another feature than z, and give each label its classes."""
    net = Tapped(channels=8, multipliers=(1, 2), blocks=1, attention=(False, False), tap="in_3")
    tapped, batch = Supervised(encoder=net, classes=(2, 3)), tiny.batch()
    pooled = Supervised(encoder=ResNet(depth=18, width=4, latent_dim=6), feature="pooled", classes=(2, 3))
    for method, width in ((tapped, 8), (pooled, 32)):
        variables = tiny.variables(method)
        head = variables["params"]["heads"]
        assert head["kernel"].shape == (width, 5)
        f = np.asarray(method.encode(variables, batch["source"])[method.feature])
        logits = f @ np.asarray(head["kernel"]) + np.asarray(head["bias"])
        expected = np.stack([logits[:, :2].argmax(1), logits[:, 2:].argmax(1)], 1)
        np.testing.assert_array_equal(method.answers(variables, batch["source"])["answers"], expected)


@pytest.mark.parametrize(
    ("encoder", "feature", "ends"),
    [
        (ResNet(depth=18, width=4, latent_dim=6), "pooled", ["stem", "stage1_block1", "stage4_block2"]),
        (ResNet(depth=18, width=4, latent_dim=6), "z", ["stem", "stage1_block1", "head"]),
        (ViT(variant="Ti", patch=8, latent_dim=6), "pooled", ["embed", "block1", "norm"]),
        (
            Tapped(channels=8, multipliers=(1, 2), blocks=1, tap="in_3"),
            "z",
            ["time", "first", "down_0_resample"],
        ),
    ],
)
def test_layers_stand_in_the_order_in_which_they_compute(encoder, feature, ends):
    if isinstance(encoder, Tapped):
        encoder = encoder.clone(attention=(False, False))
    spec = {"source": jax.ShapeDtypeStruct((2, 16, 16, 3), np.uint8)}
    layers = Supervised(encoder=encoder, feature=feature, classes=(2,)).layers(spec)
    assert [*layers[:2], layers[-1]] == [f"encoder/{name}" for name in ends]


def test_it_learns_the_labels_of_sixteen_images():
    method = tiny.supervised()
    state, step, batch = tiny.state(method), tiny.step(method), tiny.batch()
    for _ in range(500):
        state, metrics = step(state, batch)
    assert float(metrics["accuracy"]) > 0.9


def test_labels_without_classes_are_refused():
    with pytest.raises(ValueError, match=r"supervised\.classes"):
        Supervised(encoder=tiny.Encoder(), classes=())
