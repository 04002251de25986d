"""Config of the small job; a file of its own, so that `--config` may name it (the job imports the main)."""

from experiments.configs import default
from tests import prepared_data

BATCH, STEPS, SAVE, LOG, WARMUP = 8, 14, 5, 3, 4  # an epoch of the 23 images ends within step 3


def get_config():
    """The default, tiny: a warm-up of 4 steps, and dropout and an EMA to get right."""
    c = default.get_config()
    c.compilation_cache = ""
    c.data.update(name="single1", dir=str(prepared_data.data_dir()), channels=1, pair="augment")
    c.data.update(image_size=8, source_size=8, threads=1)
    c.model.update(encoder_width=2, stem="strided", latent_dim=6)
    c.model.update(channels=4, multipliers=(1,), attention=(False,), blocks=1, groups=2)
    c.optimizer.update(learning_rate=1e-2, warmup_images=WARMUP * BATCH)
    c.train.update(batch=BATCH, images=STEPS * BATCH, log_every_images=LOG * BATCH)
    c.checkpoint.update(every_images=SAVE * BATCH, keep=10)
    c.samples.update(every_images=0, steps=2, count=2)
    c.monitor.update(every_images=4 * BATCH, batch=8)  # read between two lines of the log
    c.mesh.data = 1
    return c
