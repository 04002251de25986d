"""SODA on Tiny-ImageNet: ResNet-18, 64 pixels, 800 epochs.

    python -m data.prepare folder --source=TINY_IMAGENET --name=tiny_imagenet
    python -m experiments.train --config=experiments/configs/soda_tiny_imagenet.py --workdir=runs/tiny

TINY_IMAGENET holds train/<class>/*.JPEG and test/<class>/*.JPEG (sort the validation images into class
folders). Expected cost: not run here; about eight times that of soda_cifar10. For scale, a comparable
implementation reports a linear probe of 38.2%, without layer modulation or masking. Rates, sizes and views
are `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import default

EPOCHS, IMAGES = 800, 100_000


def get_config() -> ConfigDict:
    """The default at 64 pixels, with the stem of large images."""
    config = default.get_config()
    config.data.update(
        name="tiny_imagenet", image_size=64, source_size=64, channels=3, pair="augment", workers=8
    )
    config.model.update(encoder="resnet18", stem="imagenet", latent_dim=260, channels=128, dtype="bfloat16")
    config.model.attention = (False, False, True, False)
    config.optimizer.update(learning_rate=4e-4, warmup_images=20 * IMAGES)
    config.train.update(images=EPOCHS * IMAGES, batch=512, log_every_images=51_200)
    config.checkpoint.every_images = 10 * IMAGES
    config.samples.every_images = 10 * IMAGES
    config.monitor.every_images = 5 * IMAGES
    return config
