"""A small DDAE on CIFAR-10, to see whether everything works before days are spent: 5.9 M parameters, 60 epochs.

    python -m experiments.train --config=experiments/configs/ddae_cifar10_small.py --workdir=runs/ddae_small
    python -m experiments.probe --workdir=runs/ddae_small --grid --levels=21

Somebody else's replication of that size (64 channels, one block a level, no attention) reports a linear probe of 64.29%
at `out_2` and level 21, 63.21% at `out_1`, 42.13% at `out_8`. Expected cost: not run here. Its rates are not known: all
but the sizes, the epochs and the level is `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import ddae_cifar10_ddpm

EPOCHS = 60


def get_config() -> ConfigDict:
    """The DDPM recipe, smaller and shorter."""
    config = ddae_cifar10_ddpm.get_config()
    config.model.update(channels=64, blocks=1, attention=(False,) * 4)
    config.ddae.update(tap="out_2", level=21)
    config.optimizer.update(warmup_images=ddae_cifar10_ddpm.IMAGES, learning_rate=2e-4)
    config.train.update(images=EPOCHS * ddae_cifar10_ddpm.IMAGES, batch=128)
    config.checkpoint.every_images = 10 * ddae_cifar10_ddpm.IMAGES
    config.samples.every_images = 10 * ddae_cifar10_ddpm.IMAGES
    return config
