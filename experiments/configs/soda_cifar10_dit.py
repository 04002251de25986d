"""SODA on CIFAR-10 with a DiT-S/2 (arXiv 2212.09748) as its denoiser, each of its 12 blocks under a section of z.

    python -m experiments.train --config=experiments/configs/soda_cifar10_dit.py --workdir=runs/cifar10_dit

All else as in soda_cifar10.py, whose encoder and views these are. SODA's paper has a U-Net alone: everything that is
said of the DiT is `assumed`. Expected cost: not run here.
"""

from ml_collections import ConfigDict

from experiments.configs import soda_cifar10


def get_config() -> ConfigDict:
    """The CIFAR-10 config with the other denoiser."""
    config = soda_cifar10.get_config()
    config.model.update(denoiser="dit", dit_size="S", patch=2, dropout=0.0, latent_dim=132)
    return config
