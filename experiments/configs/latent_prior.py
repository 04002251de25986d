"""A prior over the latents of a trained SODA run, for images from nothing.

    python -m experiments.train --config=experiments/configs/latent_prior.py:runs/quickstart --workdir=runs/prior
    python -m experiments.sample --workdir=runs/prior --mode=unconditional

Behind the colon stands the workdir of the SODA run: data, encoder and seed are those of its config.json; without it
they are those of the quickstart, and `--config.prior.workdir` has to name the run. The latents are those of plain
images, neither cropped nor recoloured. Sizes of the perceptron that suit a latent of some hundred numbers; Diff-AE's
own, 10 layers of 2048, are in default.py. It predicts v where Diff-AE predicts eps: after 46,000 images the latents of
the latter lay far from all that the decoder knows. Everything is `assumed`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments import runs
from experiments.configs import quickstart


def get_config(workdir: str = "") -> ConfigDict:
    """The config of the run in this folder, turned to the training of a prior."""
    config = runs.restored(runs.read_config(Path(workdir))["config"]) if workdir else quickstart.get_config()
    config.method = "latent_prior"
    config.prior.update(workdir=workdir, layers=6, width=512, prediction="v", loss="l2")
    config.data.update(crop_prob=0.0, randaugment_prob=0.0)
    config.optimizer.update(name="adamw", nesterov=False, decay="decoupled", decayed="kernels")
    config.optimizer.update(learning_rate=3e-4, weight_decay=0.01, warmup_images=10_000, schedule="constant")
    config.ema.decay = 0.999
    config.train.update(images=1_000_000, minutes=0.0, batch=256, log_every_images=10_240)
    config.checkpoint.every_images = 200_000
    config.samples.update(every_images=0, sampler="ddim", steps=50, eta=0.0, churn=0.0)
    config.samples.update(variance="posterior", grid="even")
    config.monitor.every_images = 0
    return config
