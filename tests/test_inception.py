"""Inception against a PyTorch twin with random weights of the true shapes; its images; words for other files."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation import feature_spaces
from soda_jax.nn import inception
from soda_jax.nn.torch_weights import read

torch = pytest.importorskip("torch")
SMALL = 107  # pixels a side: enough for every block to see borders and middles


@pytest.fixture(scope="module")
def twin():
    from tests import perceptual_twins as twins

    return twins.randomised(twins.Inception())


@pytest.fixture(scope="module")
def path(twin, tmp_path_factory):
    """Its file, as the public one is: 95 MB."""
    path = tmp_path_factory.mktemp("weights") / "inception.pth"
    torch.save(twin.state_dict(), path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def arrays(path):
    """As they come out of it."""
    return read(path)


def test_features_and_logits_are_those_of_pytorch(twin, arrays):
    images = np.random.default_rng(0).uniform(-1, 1, (2, SMALL, SMALL, 3)).astype(np.float32)
    with torch.no_grad():
        pooled, logits = (x.numpy() for x in twin(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())))
    variables = inception.converted(arrays, "x.pth")
    _, found = jax.jit(inception.Inception().apply)(variables, jnp.asarray(images))
    assert pooled.std() > 0.1 and found["pool3"].shape == (2, 2048) and found["logits"].shape == (2, 1008)
    for ours, theirs in ((found["pool3"], pooled), (found["logits"], logits)):
        np.testing.assert_allclose(ours, theirs, atol=1e-4 * np.abs(theirs).max())


def test_the_space_of_a_file(path):
    space = feature_spaces.inception(path)
    assert space.name.startswith("inception_") and space.name != feature_spaces.INCEPTION
    images = jax.ShapeDtypeStruct((2, 32, 40, 1), jnp.uint8)
    assert jax.eval_shape(space.features, space.variables, images).shape == (2, 2048)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            lambda a: a.pop("Mixed_6b.branch7x7_2.bn.running_var"),
            r"has no 'Mixed_6b.branch7x7_2.bn.running_var'",
        ),
        (lambda a: a.update({"fc.weight": np.zeros((1000, 2048))}), r"'fc.weight' has shape \[1000, 2048\]"),
        (
            lambda a: a.update({"Mixed_7c.branch1x1.conv.weight": np.zeros((320, 2048, 3, 3))}),
            r"\[320, 2048, 1, 1\]",
        ),
    ],
)
def test_another_network_s_file_is_told_by_the_first_key(arrays, change, words):
    changed = dict(arrays)
    change(changed)
    with pytest.raises(ValueError, match=rf"x\.pth.*{words}"):
        inception.converted(changed, "x.pth")


@pytest.mark.parametrize(("height", "width"), [(64, 40), (299, 299), (400, 300)])
def test_images_are_resized_as_tensorflow_1_did(height, width):
    """Its places, read off by PyTorch's sampler, whose corners are the middles of the first and last pixels."""
    images = np.random.default_rng(0).integers(0, 256, (2, height, width, 3), np.uint8)
    found = np.asarray(inception.prepared(jnp.asarray(images)))
    y, x = (torch.arange(299, dtype=torch.float64) * n / 299 / (n - 1) * 2 - 1 for n in (height, width))
    grid = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)
    pixels = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()).double()
    sampled = torch.nn.functional.grid_sample(
        pixels, grid.expand(2, -1, -1, -1), mode="bilinear", padding_mode="border", align_corners=True
    )
    np.testing.assert_allclose(found, (sampled.numpy().transpose(0, 2, 3, 1) - 128) / 128, atol=1e-5)
    if height == 299:
        np.testing.assert_allclose(found, (images.astype(np.float32) - 128) / 128, atol=1e-6)


def test_resizing_by_hand():
    """Two pixels to 299: the first 150 places run from one to the other, the rest lie beyond the last middle."""
    matrix = inception.weights(2, 299)
    np.testing.assert_allclose(matrix @ [0, 1], np.minimum(np.arange(299) * 2 / 299, 1), atol=1e-7)
    np.testing.assert_allclose(matrix.sum(1), 1, atol=1e-6)


def test_grey_images_are_repeated():
    grey = np.random.default_rng(0).integers(0, 256, (1, 8, 8, 1), np.uint8)
    found = inception.prepared(jnp.asarray(grey))
    np.testing.assert_array_equal(found, inception.prepared(jnp.asarray(np.tile(grey, (1, 1, 1, 3)))))
