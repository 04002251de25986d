"""LPIPS against a PyTorch twin with random weights, for both networks; and the distance that is not called LPIPS."""

import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation.lpips import PairDistance, lpips, random_resnet18


def pairs(side, count=2):
    rng = np.random.default_rng(0)
    a = np.tanh(np.cumsum(rng.normal(size=(count, side, side, 3)), 1) / 4).astype(np.float32)
    return a, np.clip(a + 0.3 * rng.normal(size=a.shape), -1, 1).astype(np.float32)


def files(kind, folder):
    """The twin's networks, and the files that they would be published in."""
    torch = pytest.importorskip("torch")
    from tests import perceptual_twins as twins

    widths = {"alex": (64, 192, 384, 256, 256), "vgg": (64, 128, 256, 512, 512)}[kind]
    backbone, heads = twins.randomised(twins.Backbone(kind)), twins.randomised(twins.Heads(widths), 1)
    torch.save(backbone.state_dict(), folder / "network.pth", _use_new_zipfile_serialization=False)
    torch.save(heads.state_dict(), folder / "heads.pth")
    return backbone, heads


@pytest.mark.parametrize(("kind", "side"), [("alex", 67), ("vgg", 37)])
def test_it_is_that_of_pytorch(kind, side, tmp_path):
    torch = pytest.importorskip("torch")
    from tests import perceptual_twins as twins

    backbone, heads = files(kind, tmp_path)
    a, b = pairs(side)
    with torch.no_grad():
        expected = twins.lpips(
            backbone, heads, *(torch.from_numpy(x.transpose(0, 3, 1, 2).copy()) for x in (a, b))
        )
    distance = lpips(kind, tmp_path / "network.pth", tmp_path / "heads.pth")
    assert distance.name == f"lpips_{kind}"
    found = distance(jnp.asarray(a), jnp.asarray(b))
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-4, atol=1e-5)


def test_files_in_the_wrong_place(tmp_path):
    files("alex", tmp_path)
    with pytest.raises(ValueError, match=r"heads\.pth has no 'features\.0\.weight'"):
        lpips("alex", tmp_path / "heads.pth", tmp_path / "network.pth")
    with pytest.raises(
        ValueError, match=r"'features\.0\.weight' has shape \[64, 3, 11, 11\], expected \[64, 3, 3, 3\]"
    ):
        lpips("vgg", tmp_path / "network.pth", tmp_path / "heads.pth")
    with pytest.raises(ValueError, match="network='resnet' is unknown: take one of alex, vgg"):
        lpips("resnet", tmp_path / "network.pth", tmp_path / "heads.pth")
    with pytest.raises(FileNotFoundError, match=r"none\.pth"):
        lpips("alex", tmp_path / "none.pth", tmp_path / "heads.pth")


def test_the_formula_by_hand():
    """Two pixels, two channels: lengths are divided out, so only directions count."""
    a = np.array([[[[3.0, 0.0], [0.0, 5.0]]]], np.float32)  # one image of 1 x 2 pixels
    b = np.array([[[[1.0, 0.0], [2.0, 0.0]]]], np.float32)
    same = PairDistance(name="x", activations=lambda _, x: [x, 2 * x], variables={})
    np.testing.assert_allclose(same(jnp.asarray(a), jnp.asarray(b)), [2 * 0.5 * (0 + (1 + 1) / 2)], rtol=1e-6)
    weighed = PairDistance(
        name="x", activations=lambda _, x: [x], variables={}, heads=(np.array([3, 1], np.float32),)
    )
    np.testing.assert_allclose(weighed(jnp.asarray(a), jnp.asarray(b)), [0.5 * (3 + 1)], rtol=1e-6)


def test_the_distance_of_an_untrained_network():
    distance = random_resnet18()
    assert distance.name == "feature_distance_random_resnet18" and "lpips" not in distance.name
    a, b = pairs(16, 8)
    amounts = np.float32([0, 0.02, 0.05, 0.1, 0.2, 0.4, 0.8, 1]).reshape(8, 1, 1, 1)
    found = np.asarray(
        distance(jnp.asarray(a[:1].repeat(8, 0)), jnp.asarray(a[:1] + amounts * (b[:1] - a[:1])))
    )
    assert found[0] == 0 and np.all(np.diff(found) > 0)
