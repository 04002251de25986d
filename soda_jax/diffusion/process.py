"""The forward process, and the three things a network may predict of it (arXiv 2006.11239, 2202.00512).

At time t, with the schedule's alpha and sigma, and eps ~ N(0, I):

    xt  = alpha x0 + sigma eps                                                                            (1)
    v   = alpha eps - sigma x0                                                                            (2)
    x0  = (xt - sigma eps) / alpha = alpha xt - sigma v                                                   (3)
    eps = (xt - alpha x0) / sigma  = sigma xt + alpha v                                                   (4)
    v   = (eps - sigma xt) / alpha = (alpha xt - x0) / sigma                                              (5)
"""

import typing
from typing import Literal

import jax.numpy as jnp
from jaxtyping import Array, Float

from soda_jax.diffusion.schedules import Schedule, alpha_of, sigma_of
from soda_jax.types import Image

Prediction = Literal["eps", "x0", "v"]
PerExample = Float[Array, "b"]


def corrupt(schedule: Schedule, x0: Image, eps: Image, t: PerExample) -> Image:
    """xt, the image x0 at time t in [0, 1] with the standard normal noise eps, (1)."""
    return corrupt_to(schedule.logsnr(t), x0, eps)


def corrupt_to(logsnr: PerExample, x0: Image, eps: Image) -> Image:
    """xt, the image x0 at these log-SNRs, (1)."""
    return _mix(logsnr, x0, eps)


def target_of(kind: Prediction, x0: Image, eps: Image, logsnr: PerExample) -> Image:
    """What a network that predicts `kind` should say of (x0, eps). ValueError for another kind."""
    check_prediction(kind)
    return {"eps": eps, "x0": x0, "v": _mix(logsnr, eps, -x0)}[kind]  # v by (2)


def convert(value: Image, source: Prediction, target: Prediction, xt: Image, logsnr: PerExample) -> Image:
    """The prediction `value` of kind `source`, said as kind `target`.

    Args:
        value: what the network said of xt.
        source, target: "eps", "x0" or "v". Raises ValueError for another kind.
        xt: the noisy image that it was said of.
        logsnr: of each example. Dividing by a small alpha or sigma magnifies rounding: by 1/alpha from
            eps, by 1/sigma from x0, not at all from v.
    """
    for kind in (source, target):
        check_prediction(kind)
    if source == target:
        return value
    return _CONVERSIONS[source, target](value, xt, logsnr)


def check_prediction(kind: str) -> None:
    """Raises ValueError where `kind` is no prediction."""
    if kind not in typing.get_args(Prediction):
        expected = typing.get_args(Prediction)
        raise ValueError(
            f"diffusion.prediction or diffusion.loss_in: expected one of {expected}, found {kind!r}"
        )


def _mix(logsnr: PerExample, first: Image, second: Image) -> Image:
    """alpha first + sigma second."""
    return _wide(alpha_of(logsnr)) * first + _wide(sigma_of(logsnr)) * second


def _unmix(logsnr: PerExample, mixed: Image, second: Image) -> Image:
    """The `first` that `_mix` had: (mixed - sigma second) / alpha."""
    return (mixed - _wide(sigma_of(logsnr)) * second) / _wide(alpha_of(logsnr))


def _wide(value: PerExample) -> Float[Array, "b 1 1 1"]:
    return jnp.expand_dims(value, (1, 2, 3))


# A change of sign of the log-SNR exchanges alpha and sigma, so that (3) to (5) are all `_mix` or `_unmix`.
_CONVERSIONS = {
    ("eps", "x0"): lambda eps, xt, logsnr: _unmix(logsnr, xt, eps),
    ("v", "x0"): lambda v, xt, logsnr: _mix(logsnr, xt, -v),
    ("x0", "eps"): lambda x0, xt, logsnr: _unmix(-logsnr, xt, x0),
    ("v", "eps"): lambda v, xt, logsnr: _mix(-logsnr, xt, v),
    ("eps", "v"): lambda eps, xt, logsnr: _unmix(logsnr, eps, xt),
    ("x0", "v"): lambda x0, xt, logsnr: -_unmix(-logsnr, x0, xt),
}
