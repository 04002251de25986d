"""BYOL (arXiv 2006.07733) on Fashion-MNIST, to hold SODA against: its encoder and its data. Sized for two CPU cores.

    python -m data.prepare fashion_mnist --source=/usr/share/datasets/fashion-mnist
    python -m experiments.train --config=experiments/configs/byol_fashion_mnist.py --workdir=runs/byol

Both views are augmented, and colours are not touched, as there are none. Everything is `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import siamese_fashion_mnist


def get_config() -> ConfigDict:
    """The recipe that the methods of two views share."""
    return siamese_fashion_mnist.get_config("byol")
