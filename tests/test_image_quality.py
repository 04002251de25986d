"""MSE, PSNR and SSIM against scikit-image, and at their ends."""

import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation.image_quality import mse, psnr, sharpness, ssim


def pairs(channels):
    """Images and what noise, blur or nothing much makes of them, in [-1, 1]."""
    rng = np.random.default_rng(0)
    smooth = np.cumsum(rng.normal(size=(4, 24, 19, channels)), axis=1)
    a = np.tanh(smooth / 4).astype(np.float32)
    b = np.clip(a + np.asarray([0.02, 0.1, 0.3, 1.0]).reshape(4, 1, 1, 1) * rng.normal(size=a.shape), -1, 1)
    return a, b.astype(np.float32)


@pytest.mark.parametrize("channels", [1, 3])
def test_they_are_those_of_scikit_image(channels):
    metrics = pytest.importorskip("skimage.metrics")
    a, b = pairs(channels)
    found = [np.asarray(measure(jnp.asarray(a), jnp.asarray(b))) for measure in (mse, psnr, ssim)]
    window = {"gaussian_weights": True, "sigma": 1.5, "use_sample_covariance": False, "channel_axis": -1}
    for i in range(4):
        x, y = ((image[i].astype(np.float64) + 1) / 2 for image in (a, b))
        assert found[0][i] == pytest.approx(metrics.mean_squared_error(x, y), rel=1e-5)
        assert found[1][i] == pytest.approx(metrics.peak_signal_noise_ratio(x, y, data_range=1.0), abs=1e-4)
        assert found[2][i] == pytest.approx(
            metrics.structural_similarity(x, y, data_range=1.0, **window), abs=1e-5
        )


def test_equal_images_and_opposite_ones():
    a = jnp.asarray(pairs(3)[0])
    assert np.all(np.asarray(mse(a, a)) == 0) and np.all(np.isinf(psnr(a, a)))
    np.testing.assert_allclose(ssim(a, a), 1.0, atol=1e-6)
    black, white = -jnp.ones((1, 11, 11, 1)), jnp.ones((1, 11, 11, 1))
    assert float(mse(black, white)[0]) == pytest.approx(1.0, rel=1e-6)
    assert float(psnr(black, white)[0]) == pytest.approx(0.0, abs=1e-5)
    assert float(ssim(black, white)[0]) == pytest.approx(1e-4, rel=1e-2)


def test_worse_images_score_worse_and_either_may_come_first():
    a, b = (jnp.asarray(x) for x in pairs(3))
    for measure, sign in ((mse, 1), (psnr, -1), (ssim, -1)):
        scores = np.asarray(measure(a, b))
        assert np.all(sign * np.diff(scores) > 0)
        np.testing.assert_allclose(measure(b, a), scores, rtol=1e-6)


def test_an_image_too_small_for_the_window():
    with pytest.raises(ValueError, match="11 pixels a side or more"):
        ssim(jnp.zeros((1, 10, 20, 1)), jnp.zeros((1, 10, 20, 1)))


def test_sharpness_tells_a_wide_edge_from_a_steep_one_of_equal_height():
    """An edge over w pixels has w steps of 1/w: 1/w of the energy; grain adds twice its variance each way."""
    columns = {w: np.clip(np.arange(33) - 16, 0, w) / w * 2 - 1 for w in (1, 2, 4)}
    found = {
        w: float(sharpness(jnp.asarray(np.tile(x, (33, 1))[None, ..., None], jnp.float32))[0])
        for w, x in columns.items()
    }
    assert found[1] == pytest.approx(1 / 32, rel=1e-5)
    assert [found[1] / found[w] for w in (2, 4)] == pytest.approx([2, 4], rel=1e-5)
    noise = jnp.asarray(np.random.default_rng(0).normal(size=(1, 200, 200, 1)), jnp.float32)
    assert float(sharpness(0.2 * noise)[0]) == pytest.approx(4 * 0.1**2, rel=0.05)
    assert np.all(sharpness(jnp.full((2, 12, 12, 3), 0.3)) == 0)
