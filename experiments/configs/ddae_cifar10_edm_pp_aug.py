"""DDAE on CIFAR-10, DDPM++ in the EDM framework with EDM's augmentation (arXiv 2303.09769, their released code).

    python -m experiments.train --config=experiments/configs/ddae_cifar10_edm_pp_aug.py --workdir=runs/ddae_cifar10_aug

56,525,443 parameters, 4,000 epochs on eight GPUs; they report 95.49% after 2,000. The net is told how an image was
altered, and nothing when its features are read. Expected cost: not run here. Values are `paper` (of the code) but for
dtype, and for the flips, which are the augmentation's alone here: `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import ddae_cifar10_ddpm, ddae_cifar10_edm


def get_config() -> ConfigDict:
    """The recipe of ddpmpp, altered."""
    config = ddae_cifar10_edm.get_config("ddpmpp")
    config.data.flip_prob = 0.0
    config.ddae.augment = 0.12
    config.optimizer.learning_rate = 8e-4
    config.train.update(images=4_000 * ddae_cifar10_ddpm.IMAGES, batch=512)
    return config
