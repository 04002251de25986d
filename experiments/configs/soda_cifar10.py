"""SODA on CIFAR-10: ResNet-18, 800 epochs.

    python -m experiments.train --config=experiments/configs/soda_cifar10.py --workdir=runs/cifar10

Reads `cifar10`, prepared by TFDS as ArrayRecord (--config.data.dir names the folder). Expected cost: not
run here; a comparable implementation in another framework needs some 25 to 32 GPU-hours on 2020 cards. For
scale, it reports a linear probe of 80.0%, without layer modulation or masking. Rates, sizes and views are
`assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import default

EPOCHS, IMAGES = 800, 50_000


def get_config() -> ConfigDict:
    """The default at 32 pixels."""
    config = default.get_config()
    config.data.update(name="cifar10", image_size=32, source_size=32, channels=3, pair="augment", workers=8)
    config.model.update(encoder="resnet18", stem="small", latent_dim=130, channels=128, dtype="bfloat16")
    config.optimizer.update(learning_rate=4e-4, warmup_images=20 * IMAGES)
    config.train.update(images=EPOCHS * IMAGES, batch=512, log_every_images=51_200)
    config.checkpoint.every_images = 20 * IMAGES
    config.samples.every_images = 20 * IMAGES
    config.monitor.every_images = 5 * IMAGES
    return config
