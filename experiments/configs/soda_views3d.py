"""SODA on views3d, for longer: what the quickstart learns in four minutes, learned well.

    python -m experiments.train --config=experiments/configs/soda_views3d.py --workdir=DIR

The quickstart's recipe with masked sections of z, larger batches, a wider encoder, a rate that falls to zero, and
without guidance, which a denoiser that has learned the shapes does not need: it costs PSNR. Everything is `assumed`.
See README.md, Results.
"""

from ml_collections import ConfigDict

from experiments.configs import quickstart


def get_config() -> ConfigDict:
    """The quickstart, longer."""
    config = quickstart.get_config("masked")
    config.model.update(encoder_width=32)
    config.optimizer.update(schedule="cosine", warmup_images=8_000)
    config.ema.decay = 0.999
    config.train.update(images=400_000, batch=32, log_every_images=4_096)
    config.checkpoint.every_images = 40_000
    config.samples.update(steps=10, guidance=0.0)
    config.monitor.every_images = 40_000
    config.probe.images = 1_000_000
    config.probe.max_train = 0
    return config
