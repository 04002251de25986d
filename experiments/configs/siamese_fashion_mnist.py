"""What methods of two views share on Fashion-MNIST: SODA's encoder and data, larger batches. For two CPU cores.

    python -m experiments.train --config=experiments/configs/siamese_fashion_mnist.py --config.method=byol --workdir=DIR

simclr_, byol_ and vicreg_fashion_mnist.py name the method. Everything is `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import soda_fashion_mnist


def get_config(method: str = "simclr") -> ConfigDict:
    """SODA's config for Fashion-MNIST, without what only a denoiser needs."""
    config = soda_fashion_mnist.get_config()
    config.method = method
    config.data.augment_target = True
    config.model.latent_dim = 256
    config.optimizer.update(learning_rate=1e-3, encoder_ratio=1.0, warmup_images=20_000)
    config.train.update(images=1_000_000, batch=256, log_every_images=10_240)
    config.checkpoint.every_images = 250_000
    config.samples.every_images = 0
    config.monitor.update(every_images=100_000, batch=256)
    return config
