"""Fine-tuning of a trained run: its encoder, or a DDAE's net up to its tap, with heads for the labels.

    python -m experiments.finetune --workdir=runs/fashion --fraction=0.01
    python -m experiments.train --config=experiments/configs/finetune.py:runs/fashion --workdir=runs/fashion_tuned

Behind the colon stands the workdir of the run, and after an @ the step of its checkpoint (default: the newest);
networks, data and seed are those of its config.json. Neither paper's recipe is published, so all of this is `assumed`:
AdamW, a cosine, the rate of each layer 0.75 times that of the next, milder crops than in training, averaged weights.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments import runs
from experiments.configs import quickstart
from soda_jax.training import checkpoints


def get_config(place: str = "") -> ConfigDict:
    """The config of the run in this folder, turned to fine-tuning. ValueError where it has no checkpoint."""
    workdir, _, step = place.partition("@")
    config = quickstart.get_config()
    if workdir:
        saved = runs.read_config(Path(workdir))
        config = runs.restored(saved["config"])
        config.supervised.classes = tuple(saved["data_info"]["labels"].values())
        config.finetune.step = int(step) if step else newest(Path(workdir))
    config.finetune.update(workdir=workdir, method=config.method)
    config.method = "finetune"
    config.data.update(sources=1, crop_scale=(0.5, 1.0), randaugment_prob=0.5)
    config.ddae.draws = 0
    config.optimizer.update(name="adamw", nesterov=False, decay="decoupled", decayed="kernels")
    config.optimizer.update(learning_rate=1e-3, encoder_ratio=1.0, weight_decay=0.05, schedule="cosine")
    config.optimizer.update(warmup_images=5_000, hold_images=0)
    config.ema.update(decay=0.999, ramp="tens", batch_stats=True)
    config.train.update(images=100_000, minutes=0.0, batch=128, accumulation=1, log_every_images=5_120)
    config.checkpoint.every_images = 25_600
    config.samples.every_images = 0
    config.monitor.every_images = 0
    return config


def newest(workdir: Path) -> int:
    """The step of its newest checkpoint."""
    found = checkpoints.steps(workdir / "checkpoints")
    if not found:
        raise ValueError(f"{workdir} has no checkpoint yet: train it first")
    return max(found)
