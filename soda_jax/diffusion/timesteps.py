"""How training draws the time t of each example: uniformly (arXiv 2006.11239, algorithm 1)."""

import jax

from soda_jax.diffusion.process import PerExample
from soda_jax.diffusion.schedules import Schedule
from soda_jax.types import Keys


def draw_times(schedule: Schedule, keys: Keys) -> PerExample:
    """One t for each key: uniform over {1..T}/T, or over (0, 1] where the schedule is continuous.

    t = 0, the clean image, is never drawn: nothing can be learnt there.
    """
    if not schedule.steps:
        return 1 - jax.vmap(jax.random.uniform)(keys)  # uniform is over [0, 1)
    index = jax.vmap(lambda key: jax.random.randint(key, (), 1, schedule.steps + 1))(keys)
    return index / schedule.steps
