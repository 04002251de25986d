"""How training draws the time t of each example: uniformly (arXiv 2006.11239, algorithm 1)."""

import jax
import jax.numpy as jnp

from soda_jax.diffusion.process import PerExample
from soda_jax.diffusion.schedules import Schedule
from soda_jax.types import Keys

BELOW_ONE = 1 - 2**-24  # the largest float32 that is


def draw_times(schedule: Schedule, keys: Keys, strata: int = 1) -> PerExample:
    """One t for each key: uniform over {1..T}/T, or over (0, 1] where the schedule is continuous; strata: of `spread`.

    t = 0, the clean image, is never drawn: nothing can be learnt there.
    """
    if not schedule.steps:
        return 1 - spread(keys, strata)
    if strata == 1:  # as seeds have always drawn them
        index = jax.vmap(lambda key: jax.random.randint(key, (), 1, schedule.steps + 1))(keys)
    else:
        index = 1 + jnp.floor(spread(keys, strata) * schedule.steps)
    return index / schedule.steps


def spread(keys: Keys, strata: int = 1) -> PerExample:
    """One number in [0, 1) for each key: of key i in part i mod strata, of as many equal parts.

    Alone it is uniform in its part only; so many in a row are, together, uniform in all, and a mean over them varies
    less than over as many free ones (the idea of the low-discrepancy sampler of arXiv 2107.00630).
    """
    part = jnp.arange(len(keys)) % strata
    found = (part + jax.vmap(jax.random.uniform)(keys)) / strata
    return jnp.minimum(found, BELOW_ONE)  # the last part's largest numbers are rounded to 1
