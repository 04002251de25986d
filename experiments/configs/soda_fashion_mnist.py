"""SODA on Fashion-MNIST, sized for two CPU cores.

    python -m data.prepare fashion_mnist --source=/usr/share/datasets/fashion-mnist
    python -m experiments.train --config=experiments/configs/soda_fashion_mnist.py --workdir=runs/fashion

Expected cost: about 20 minutes on two cores. Everything is `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import default


def get_config() -> ConfigDict:
    """The default, small."""
    config = default.get_config()
    data = dict(name="fashion_mnist", image_size=32, source_size=32, channels=1, pair="augment")
    views = dict(crop_scale=(0.6, 1.0), randaugment_prob=0.0)
    config.data.update(**data, **views)
    config.model.update(encoder_width=16, stem="strided", channels=32, patch=2, latent_dim=130, dropout=0.0)
    config.model.update(groups=8)
    config.optimizer.update(learning_rate=3e-4, warmup_images=2_000)
    config.ema.decay = 0.999
    config.train.update(images=60_000, batch=32, log_every_images=1_024)
    config.checkpoint.every_images = 20_000
    config.samples.every_images = 20_000
    config.monitor.update(every_images=5_000, batch=128)
    return config
