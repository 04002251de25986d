"""A file of ADM's public weights (`soda_jax.nn.adm_weights`) as a DDAE: under the mean of its classes, without sigma.

Its time k = 0 .. 999 is our t = (k + 1) / 1000, or noise level k + 1.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from soda_jax.nn.adm_weights import ADM, adm_params
from soda_jax.types import Tree

NET = ("channels", "multipliers", "blocks", "attention", "head_channels", "resample", "layout", "patch")
NOISE = {"framework": "ddpm", "steps": 1000, "prediction": "eps", "loss_in": "eps"}


def keys_of(adm: ADM) -> dict[str, Any]:
    """{"model.channels": 192, ...}: what the config of a run with this net must say; more of the published models."""
    keys = {f"model.{name}": getattr(adm.net, name) for name in NET} | {"model.denoiser": "unet"}
    keys |= {f"diffusion.{name}": value for name, value in NOISE.items()}
    keys |= {"data.channels": adm.net.out_channels, "ddae.augment": 0.0}
    if adm.public:
        keys |= {"data.image_size": adm.public.side, "data.source_size": adm.public.side}
        keys["diffusion.schedule"] = adm.public.schedule
    return keys


def params_of(adm: ADM, state: Mapping[str, np.ndarray], order: str | None, path: str) -> Tree:
    """The parameters of the net that a DDAE trains. Raises what `adm_params` raises."""
    return adm_params(state, adm, order, path=path)
