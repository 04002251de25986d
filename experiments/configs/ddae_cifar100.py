"""DDAE on CIFAR-100: the recipes for CIFAR-10, on the other labels. Nobody has reported a number.

    python -m experiments.train --config=experiments/configs/ddae_cifar100.py --workdir=runs/ddae_cifar100
    python -m experiments.train --config=experiments/configs/ddae_cifar100.py:ddpmpp --workdir=...

Reads `cifar100`, prepared by TFDS as ArrayRecord. EDM's framework, whose features were the better ones on CIFAR-10.
Expected cost: as ddae_cifar10_edm.py; not run here. Everything is `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import ddae_cifar10_edm


def get_config(network: str = "ddpm") -> ConfigDict:
    """The EDM recipe of a network."""
    config = ddae_cifar10_edm.get_config(network)
    config.data.name = "cifar100"
    return config
