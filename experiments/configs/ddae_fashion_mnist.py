"""DDAE on Fashion-MNIST, sized for two CPU cores.

    python -m data.prepare fashion_mnist --source=/usr/share/datasets/fashion-mnist
    python -m experiments.train --config=experiments/configs/ddae_fashion_mnist.py --workdir=runs/ddae_fashion
    python -m experiments.probe --workdir=runs/ddae_fashion --grid

The DDPM U-Net, small, on patches of 2 x 2. Everything is `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import ddae_cifar10_ddpm


def get_config() -> ConfigDict:
    """The CIFAR-10 config, small."""
    config = ddae_cifar10_ddpm.get_config()
    config.data.update(name="fashion_mnist", channels=1, workers=0)
    config.model.update(channels=64, multipliers=(1, 2), blocks=2, attention=(False, True), patch=2)
    config.model.update(dropout=0.0, dtype="float32")
    config.ddae.update(tap="out_3", level=11)
    config.optimizer.update(learning_rate=1e-3, warmup_images=2_000, hold_images=0)
    config.ema.update(decay=0.999, ramp="tens")
    config.train.update(images=60_000, batch=32, log_every_images=2_048)
    config.checkpoint.every_images = 20_000
    config.samples.update(every_images=20_000, steps=50)
    return config
