"""How near one image is to another: MSE, PSNR, SSIM (Wang et al. 2004, doi 10.1109/TIP.2003.819861); how sharp one is.

    MSE  = mean (a - b)^2                                                                              (1)
    PSNR = 10 log10(L^2 / MSE),  in dB                                                                 (2)
    SSIM = mean of ((2 m_a m_b + C1) (2 c_ab + C2)) / ((m_a^2 + m_b^2 + C1) (v_a + v_b + C2))          (3)
           C1 = (0.01 L)^2,  C2 = (0.03 L)^2
    S    = mean (a_right - a)^2 + (a_below - a)^2                                                      (4)

m, v and c are local means, variances and covariances under a Gaussian window of 11 x 11 pixels, sigma 1.5, that lies
wholly inside the image; the mean of (3) is over its places and the channels. L is the range of the values. (4) is the
energy of the gradient: an edge that is blurred over w pixels has 1/w of it (its height alone would not tell). Grain
has some too, so sharpness is to be held against that of the true image: below 1 is blurred, above 1 grainy.
"""

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float

from soda_jax.types import Image

RANGE = 2.0  # L of images in [-1, 1]
RADIUS, SIGMA = 5, 1.5
SMALLEST = 2 * RADIUS + 1  # pixels a side that SSIM needs
MOST = 100.0  # dB, of `capped_psnr`
Scores = Float[Array, "b"]  # one number an image


def mse(a: Image, b: Image) -> Scores:
    """(1) of images in [-1, 1], told for a range of 1, as most do: 0 for equal images, 1 for black against white."""
    return jnp.mean(jnp.square((a - b) / RANGE), axis=(1, 2, 3))


def psnr(a: Image, b: Image) -> Scores:
    """(2), in dB, of images in [-1, 1]; infinite for equal ones."""
    return -10 * jnp.log10(mse(a, b))


def capped_psnr(a: Image, b: Image) -> Scores:
    """`psnr`, at most MOST: of images that are equal it would be infinite, and with it every mean."""
    return jnp.minimum(psnr(a, b), MOST)


def ssim(a: Image, b: Image) -> Scores:
    """(3) of images in [-1, 1]: 1 for equal ones. ValueError for images of fewer than 11 pixels a side."""
    if min(a.shape[1:3]) < SMALLEST:
        raise ValueError(f"SSIM needs images of {SMALLEST} pixels a side or more, found {a.shape[1:3]}")
    a, b = (a + 1) / RANGE, (b + 1) / RANGE  # so that L is 1
    mean_a, mean_b = blurred(a), blurred(b)
    variance_a, variance_b = blurred(a * a) - mean_a**2, blurred(b * b) - mean_b**2
    covariance = blurred(a * b) - mean_a * mean_b
    c1, c2 = 0.01**2, 0.03**2
    means = (2 * mean_a * mean_b + c1) / (mean_a**2 + mean_b**2 + c1)
    return jnp.mean(means * (2 * covariance + c2) / (variance_a + variance_b + c2), axis=(1, 2, 3))


def sharpness(a: Image) -> Scores:
    """(4) of images in [-1, 1], told for a range of 1."""
    across, down = (jnp.mean(jnp.square(jnp.diff(a, axis=axis)), axis=(1, 2, 3)) for axis in (2, 1))
    return (across + down) / RANGE**2


def blurred(x: Image) -> Float[Array, "b h2 w2 c"]:
    """Local means under the window, at the places where it lies inside: 10 pixels fewer a side."""
    weights = np.exp(-0.5 * (np.arange(-RADIUS, RADIUS + 1) / SIGMA) ** 2)
    window = jnp.asarray(weights / weights.sum(), jnp.float32)
    channels = x.shape[-1]
    for shape in ((-1, 1, 1, 1), (1, -1, 1, 1)):
        kernel = jnp.broadcast_to(window.reshape(shape), (*window.reshape(shape).shape[:3], channels))
        x = jax.lax.conv_general_dilated(
            x,
            kernel,
            (1, 1),
            "VALID",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=channels,
            precision="highest",
        )
    return x
