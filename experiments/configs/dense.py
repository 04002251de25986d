"""Segmentation or landmarks on a trained run: its encoder, or a DDAE's net up to its tap, and a head, by its labels.

    python -m experiments.dense --workdir=runs/quickstart --task=segmentation
    python -m experiments.train --config=experiments/configs/dense.py:runs/quickstart --workdir=runs/masks

Behind the colon stands the workdir of the run, and after an @ the step of its checkpoint (default: the newest);
networks, data and seed are those of its config.json. RepFusion's recipes (arXiv 2308.10916: SGD, 160,000 steps) are for
photographs of faces; this one is that of finetune.py and `assumed`, but for what configs/other_methods.py says.
"""

from ml_collections import ConfigDict

from experiments.configs import finetune


def get_config(place: str = "") -> ConfigDict:
    """The config of the run in this folder, turned to a dense task. ValueError where it has no checkpoint."""
    config = finetune.get_config(place)
    config.method = "dense"
    config.data.pair = "augment"  # one image is looked at
    config.train.update(images=50_000, batch=64)
    config.optimizer.warmup_images = 2_000
    return config
