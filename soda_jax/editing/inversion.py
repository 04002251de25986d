"""The noise that a trained SODA would draw a given image from, under the guidance of a z: what edits start from."""

from jaxtyping import Array, Float, Int

from soda_jax.diffusion.inversion import ITERATIONS, invert
from soda_jax.diffusion.samplers import OnStep
from soda_jax.methods.soda import SODA, Guidance
from soda_jax.nn.attention import Context
from soda_jax.types import Batch, Image, Latent, Tree


def noise_of(
    method: SODA,
    variables: Tree,
    x0: Image,
    z: Latent,
    grid: Float[Array, " n"],
    *,
    iterations: int = ITERATIONS,
    guidance: Guidance | float = 0.0,
    cameras: Batch | None = None,
    context: Context | None = None,
    on_step: OnStep | None = None,
    steps: int | Int[Array, ""] | None = None,
) -> Image:
    """x at the first time of the grid: `method.generate` draws x0 from it again, given

        noise=noise_of(...), grid=grid, sampler=exact(...)

    and the same z, guidance, cameras and context; another z edits the image. grid: `inner_times(method.schedule,
    steps)`, see diffusion/inversion.py. Raises ValueError as `method.generate` does.
    """
    denoise = method.guided_denoise(variables, z, guidance, method.view(cameras or {}, x0.shape), context)
    return invert(denoise, method.schedule, x0, grid, iterations=iterations, on_step=on_step, steps=steps)
