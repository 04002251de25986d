"""What the denoiser is not told of z, or of a class: dropped in training, and by the unconditional branch of guidance.

    z~_i   = m_i m z_i,  m_i ~ B(1 - mask_section),  m ~ B(1 - mask_all)      (1)  masked section = zero vector
    eps^   = (1 + w) eps(xt, t, z) - w eps(xt, t, z without some sections)    (2)  SODA (arXiv 2311.17901)

Where all sections of an example are dropped, its context is, too. Where it is a class that the denoiser is told, it is
told the null class in its place (arXiv 2207.12598).
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float

from soda_jax.diffusion.sampler_steps import Denoise
from soda_jax.diffusion.samplers import guided
from soda_jax.nn.attention import Context
from soda_jax.nn.rays import View
from soda_jax.types import Image, Keys, Latent


class Condition(NamedTuple):
    """What the denoiser is told beside xt and t; None: of that, nothing."""

    z: Latent
    view: View | None = None  # the rays of the target
    context: Context | None = None  # the encoder's last map of every source, as tokens

    def beside(self) -> dict[str, Any]:
        """What `generate` takes by name beside z: the context, if there is one."""
        return {} if self.context is None else {"context": self.context}

    def keeping(self, keep: Bool[Array, "#b s"]) -> "Condition":
        """Zero vectors where `keep` is False, and for the context where it is False of all sections."""
        some = jnp.any(keep, axis=-1)[:, None, None]
        context = None if self.context is None else jnp.where(some, self.context, 0.0)
        return self._replace(z=drop(self.z, keep), context=context)


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Classifier-free guidance (2). ValueError for an interval that is none, or a rescale outside 0..1.

    weight: w. sections: those that the unconditional branch loses (None: all). interval: of t, both ends included,
    within which it guides (arXiv 2404.07724). rescale: see `samplers.guided`.
    """

    weight: float = 0.0
    sections: tuple[int, ...] | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self):
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"samples.guidance_interval must be (low, high) of t within 0..1, found {self.interval}"
            )
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"samples.guidance_rescale must be 0 to 1, found {self.rescale}")

    def weight_at(self, t: Float[Array, " b"]) -> Float[Array, " b"]:
        """w inside the interval, 0 outside."""
        low, high = self.interval
        return jnp.where((t >= low) & (t <= high), self.weight, 0.0)


def steered(led: Denoise, unled: Denoise, guidance: Guidance | float) -> Denoise:
    """eps^ of (2) as a function of (xt, t), of both of its branches; guidance may be its w alone.

    Without a weight `unled` is never called.
    """
    guidance = Guidance(weight=guidance) if isinstance(guidance, float) else guidance

    def denoise(xt: Image, t: Float[Array, " b"]) -> Image:
        eps = led(xt, t)
        if not guidance.weight:
            return eps
        return guided(eps, unled(xt, t), guidance.weight_at(t), guidance.rescale)

    return denoise


def check_probability(key: str, value: float) -> None:
    """Raise ValueError unless 0 <= value < 1: with 1, what is dropped would never be seen."""
    if not 0 <= value < 1:
        raise ValueError(f"{key} must be a probability in [0, 1), found {value}")


def draw_mask(keys: Keys, sections: int, mask_section: float, mask_all: float) -> Bool[Array, "b s"]:
    """(1): True where a section stays."""
    draws = jax.vmap(lambda key: jax.random.uniform(key, (sections + 1,)))(keys)
    return (draws[:, :-1] >= mask_section) & (draws[:, -1:] >= mask_all)


def drop(z: Latent, keep: Bool[Array, "#b s"]) -> Latent:
    """Zero vectors where `keep` is False."""
    return jnp.where(keep[..., None], z, 0.0)


def keep_all_but(sections: int, dropped: tuple[int, ...] | None) -> Bool[Array, " s"]:
    """True for the sections that are not dropped; None drops all. ValueError for one that does not exist."""
    if dropped is None:
        return jnp.zeros(sections, bool)
    wrong = [i for i in dropped if not 0 <= i < sections]
    if wrong:
        raise ValueError(f"samples.guide_sections must lie in 0..{sections - 1}, found {wrong}")
    return jnp.asarray([i not in dropped for i in range(sections)])
