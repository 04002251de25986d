"""SODA on ImageNet-1k: ResNet-50, sources of 224 pixels, targets of 64 (default) or 128, on a pod.

    python -m experiments.train --config=experiments/configs/soda_imagenet.py --workdir=/shared/imagenet64
    python -m experiments.train --config=experiments/configs/soda_imagenet.py:128 --workdir=/shared/imagenet128

Reads `imagenet2012`, prepared by TFDS as ArrayRecord (--config.data.dir names the folder). Expected cost:
not run here. The paper quotes a linear probe of 72.24% but neither its sizes nor its length are public: all
of them are `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import default

EPOCHS, IMAGES = 800, 1_281_167


def get_config(target: str = "64") -> ConfigDict:
    """`target`: pixels a side of what is denoised, "64" or "128". ValueError for another."""
    if target not in ("64", "128"):
        raise ValueError(f"soda_imagenet.py:{target}: targets are 64 or 128 pixels; write :64 or :128")
    config = default.get_config()
    config.data.update(
        name="imagenet2012", image_size=int(target), source_size=224, channels=3, pair="augment"
    )
    config.data.update(test_split="validation", workers=32, prefetch=1024)
    config.model.update(encoder="resnet50", stem="imagenet", latent_dim=2048 // 13 * 13, channels=192)
    config.model.update(multipliers=(1, 2, 3, 4), attention=(False, False, True, True), heads=4)
    config.model.update(dtype="bfloat16", remat="blocks", patch=1 if target == "64" else 2)
    config.optimizer.update(learning_rate=4e-4, warmup_images=10 * IMAGES)
    config.train.update(images=EPOCHS * IMAGES, batch=2048, log_every_images=204_800)
    config.checkpoint.every_images = IMAGES
    config.samples.every_images = 10 * IMAGES
    config.monitor.every_images = 5 * IMAGES
    config.mesh.update(
        data=-1, fsdp=4
    )  # parts of 16 channels and their multiples, which TPUs can reduce-scatter
    return config
