"""DDAE on Tiny-ImageNet, with the net that its author names for it and could not train for lack of memory.

    python -m data.prepare folder --source=TINY_IMAGENET --name=tiny_imagenet
    python -m experiments.train --config=experiments/configs/ddae_tiny_imagenet.py --workdir=runs/ddae_tiny

TINY_IMAGENET as for soda_tiny_imagenet.py. The net, after ADM: 192 channels, attention at 32, 16 and 8 pixels with 64
channels a head, three blocks a level that resample by themselves: 281 M parameters. The paper reports 50.0% for a net
that is not known. Expected cost: not run here. The net is the author's example; the rest is `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import ddae_cifar10_edm

IMAGES = 100_000


def get_config() -> ConfigDict:
    """The EDM recipe for CIFAR-10, at 64 pixels."""
    config = ddae_cifar10_edm.get_config("ddpmpp")
    config.data.update(name="tiny_imagenet", image_size=64, source_size=64)
    config.model.update(channels=192, multipliers=(1, 2, 3, 4), blocks=3, head_channels=64, dropout=0.1)
    config.model.update(attention=(False, True, True, True), remat="blocks")
    config.optimizer.update(warmup_images=100 * IMAGES, hold_images=IMAGES)
    config.train.update(images=1_000 * IMAGES, batch=256)
    config.checkpoint.every_images = 20 * IMAGES
    config.samples.every_images = 50 * IMAGES
    config.mesh.fsdp = 4
    return config
