"""SODA on Fashion-MNIST, sized for two CPU cores.

    python -m data.prepare fashion_mnist --source=/usr/share/datasets/fashion-mnist
    python -m experiments.train --config=experiments/configs/soda_fashion_mnist.py --workdir=runs/fashion

Expected cost: 20 minutes of training on two cores, 4 minutes of probe. Everything is `assumed`.

The stem of 7 x 7 / 2 and max-pool leaves little of 32 x 32 pixels to compute on, so that the encoder can be 64 wide:
trained or not, its 512 pooled features are worth 2 to 4 points more than 256 at twice the side, for the same work.
The target is the plain image: z must tell how it looks, whatever was cropped. For photographs: data.channels=3.
"""

from ml_collections import ConfigDict

from experiments.configs import default


def get_config() -> ConfigDict:
    """The default, small."""
    config = default.get_config()
    data = dict(name="fashion_mnist", image_size=32, source_size=32, channels=1, pair="augment")
    views = dict(crop_scale=(0.6, 1.0), randaugment_prob=0.0, augment_target=False)
    config.data.update(**data, **views)
    config.model.update(encoder_width=64, stem="imagenet", residual_gain=0.25, latent_dim=260)
    config.model.update(channels=32, multipliers=(1, 2), blocks=1, attention=(False, True), patch=4)
    config.model.update(dropout=0.0, groups=8)
    config.diffusion.update(schedule="linear", prediction="x0", loss_in="x0")
    config.optimizer.update(learning_rate=1e-3, encoder_ratio=0.2, warmup_images=2_000, schedule="cosine")
    config.ema.decay = 0.999
    config.train.update(images=252_000, batch=32, log_every_images=2_048)
    config.checkpoint.every_images = 84_000
    config.samples.update(every_images=84_000, steps=25)
    config.monitor.update(every_images=21_000, batch=128)
    return config
