"""SODA on views3d, for longer: what the quickstart learns in four minutes, learned well.

    python -m experiments.train --config=experiments/configs/soda_views3d.py --workdir=DIR
    python -m experiments.train --config=experiments/configs/soda_views3d.py:draws --workdir=DIR

The first is the quickstart's recipe with masked sections of z, larger batches, a wider encoder, a rate that falls to
zero, and without guidance, which a denoiser that has learned the shapes does not need: it costs PSNR.

`:draws` paints novel views better than a regressor that sees the same images. It is the quickstart's recipe without
masks, on a ResNet-18, with a rate that falls to zero and eight noise levels of each target in a step
(`diffusion.draws`); two calls draw an image. About an hour on two CPU cores. Everything is `assumed`. See README.md,
Results.
"""

from ml_collections import ConfigDict

from experiments.configs import quickstart


def get_config(kind: str = "") -> ConfigDict:
    """The quickstart, longer. kind: "", or "draws". Raises ValueError for another."""
    if kind not in ("", "draws"):
        raise ValueError(f"soda_views3d.py:{kind}: expected soda_views3d.py, or soda_views3d.py:draws")
    config = quickstart.get_config("" if kind else "masked")
    config.optimizer.schedule = "cosine"
    config.ema.decay = 0.999
    config.samples.guidance = 0.0
    config.train.log_every_images = 4_096
    if kind == "draws":
        config.model.update(encoder="resnet18", ray_frame="world")
        config.optimizer.update(name="adamw", learning_rate=1e-3, nesterov=False)
        config.diffusion.draws = 8
        config.train.images = 200_000
        config.checkpoint.every_images = config.monitor.every_images = 25_000
        config.samples.steps = 2
    else:
        config.model.encoder_width = 32
        config.optimizer.warmup_images = 8_000
        config.train.update(images=400_000, batch=32)
        config.checkpoint.every_images = config.monitor.every_images = 40_000
        config.samples.steps = 10
        config.probe.update(images=1_000_000, max_train=0)
    return config
