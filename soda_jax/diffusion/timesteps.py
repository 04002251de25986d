"""How training draws the time t of each example: uniformly (arXiv 2006.11239, algorithm 1)."""

import jax
import jax.numpy as jnp

from soda_jax.diffusion.process import PerExample
from soda_jax.diffusion.schedules import Schedule
from soda_jax.types import Keys


def draw_times(schedule: Schedule, keys: Keys, strata: int = 1) -> PerExample:
    """One t for each key: uniform over {1..T}/T, or over (0, 1] where the schedule is continuous.

    t = 0, the clean image, is never drawn: nothing can be learnt there.
    strata: key i draws from part i mod strata of as many equal parts of the times. Alone it is uniform no more; so many
    in a row are, together, and their mean varies less (as the low-discrepancy sampler's of arXiv 2107.00630).
    """
    part = jnp.arange(len(keys)) % strata
    if not schedule.steps:
        return 1 - (part + jax.vmap(jax.random.uniform)(keys)) / strata  # uniform is over [0, 1)
    if strata == 1:
        index = jax.vmap(lambda key: jax.random.randint(key, (), 1, schedule.steps + 1))(keys)
    else:
        index = 1 + jnp.floor((part + jax.vmap(jax.random.uniform)(keys)) / strata * schedule.steps)
        index = jnp.minimum(index, schedule.steps)  # rounding may reach T + 1
    return index / schedule.steps
