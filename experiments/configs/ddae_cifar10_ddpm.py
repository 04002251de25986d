"""DDAE on CIFAR-10 as its authors train it in the DDPM framework (arXiv 2303.09769, their released code).

    python -m experiments.train --config=experiments/configs/ddae_cifar10_ddpm.py --workdir=runs/ddae_cifar10
    python -m experiments.train --config=experiments/configs/ddae_cifar10_ddpm.py:ddpmpp --workdir=...

Behind the colon stands the network: ddpm (the default, 35.7 M parameters) or ddpmpp (56.5 M). Reads `cifar10`, prepared
by TFDS as ArrayRecord (--config.data.dir names the folder). Of 2,000 epochs 800 (ddpm) or 1,200 (ddpmpp) probe best:
they report 90.05% and 93.97%, both at `out_6` and level 11, chosen on the test split. Expected cost: not run here;
14 hours on four GPUs of 2020, they say. Values are `paper` (of the code) but for dtype (float16 there; bfloat16 is
`assumed`).
"""

from ml_collections import ConfigDict

from experiments.configs import default

IMAGES = 50_000
NETWORKS = {
    "ddpm": {"multipliers": (1, 2, 2, 2), "blocks": 2, "attention": (False, True, False, False)},
    "ddpmpp": {"multipliers": (2, 2, 2), "blocks": 4, "attention": (False, True, False), "resample": "block"},
}
BATCHES = {"ddpm": 512, "ddpmpp": 256}  # of 4 GPUs


def get_config(network: str = "ddpm") -> ConfigDict:
    """The recipe of a network. ValueError for another name."""
    if network not in NETWORKS:
        raise ValueError(f"ddae_cifar10: expected the network {' or '.join(NETWORKS)}, found {network!r}")
    config = default.get_config()
    config.method = "ddae"
    config.data.update(name="cifar10", image_size=32, source_size=32, channels=3, pair="augment", workers=8)
    config.data.update(crop_prob=1.0, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0), randaugment_prob=0.0)
    config.model.update(channels=128, dropout=0.1, dtype="bfloat16", **NETWORKS[network])
    config.diffusion.update(framework="ddpm", schedule="linear", prediction="eps", loss_in="eps")
    config.ddae.update(tap="out_6", level=11)
    config.optimizer.update(learning_rate=4e-4, weight_decay=0.0, b2=0.999, clip=1.0)
    config.optimizer.update(warmup_images=13 * IMAGES, hold_images=IMAGES)
    config.ema.update(decay=0.9999, ramp="power")
    config.train.update(images=2_000 * IMAGES, batch=BATCHES[network], log_every_images=51_200)
    config.checkpoint.update(every_images=100 * IMAGES)
    config.samples.update(every_images=100 * IMAGES, steps=100)
    config.monitor.every_images = 0
    return config
