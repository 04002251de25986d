"""Views held against the true ones: figures that are known, and an untrained network's distance."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.evaluation.image_quality import MOST
from soda_jax.evaluation.novel_views import MEASURES, gain, measure, named, row

FEATURES = "feature_distance_random_resnet18"
SCENES = np.array([0, 0, 1, 1, 2, 2])


@pytest.fixture(scope="module")
def scores():
    """Of the true views, of the same with noise of 0.1, and of their negatives."""
    rng = np.random.default_rng(0)
    true = np.tanh(np.cumsum(rng.normal(size=(6, 16, 16, 3)), axis=1) / 4).astype(np.float32)
    noisy = true + 0.2 * rng.choice([-1.0, 1.0], true.shape).astype(np.float32)
    images = [jnp.asarray(x) for x in (true, noisy, -true)]
    return named(np.asarray(jax.jit(measure)(images, images[0])), ("true", "noisy", "negative"))


def test_true_views_have_the_best_figures_there_are(scores):
    found = row(scores["true"], scores["true"], SCENES)
    assert found["psnr"] == MOST and found["psnr_ci95"] == [MOST, MOST]
    assert found["ssim"] == pytest.approx(1.0, abs=1e-6) and found["sharpness"] == 1.0
    assert found[FEATURES] == pytest.approx(0.0, abs=1e-6)


def test_grain_of_a_known_size_has_the_psnr_and_the_sharpness_that_it_must_have(scores):
    """Plus or minus 0.1 of the range: 20 dB; and 4 x 0.01 more energy of the gradient, but for the borders."""
    found = row(scores["noisy"], scores["true"], SCENES)
    assert found["psnr"] == pytest.approx(20.0, abs=1e-3)
    more = 4 * 0.01 * (15 / 16 + 1 / 16) / scores["true"]["sharpness"].mean()
    assert found["sharpness"] == pytest.approx(1 + more, rel=0.1)
    assert (
        found["ssim"] < 1 and 0 < found[FEATURES] < row(scores["negative"], scores["true"], SCENES)[FEATURES]
    )


def test_gains_are_differences_and_have_signs(scores):
    true = scores["true"]
    found = gain(scores["noisy"], scores["negative"], true, SCENES)
    rows = [row(scores[name], true, SCENES) for name in ("noisy", "negative")]
    for name in MEASURES:
        assert found[name] == pytest.approx(rows[0][name] - rows[1][name], abs=1e-5)
    assert found["psnr_ci95"][0] > 0 and found[FEATURES] < 0
    assert gain(true, true, true, SCENES)["psnr_ci95"] == [0.0, 0.0]
