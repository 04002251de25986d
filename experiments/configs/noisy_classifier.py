"""Classes through noise: a head on a trained DDAE's features, or a wide ResNet from scratch, told the noise.

    python -m experiments.noisy_classifier --workdir=runs/ddae --backbone=ddae
    python -m experiments.train --config=experiments/configs/noisy_classifier.py:runs/ddae,wrn --workdir=runs/wrn

Behind the colon stands the workdir of a DDAE run, after an @ the step of its checkpoint (default: the newest), after a
comma the backbone (default: ddae); networks, data and seed are those of its config.json. Values are `paper` (of the
released code of arXiv 2303.09769), on 4 GPUs there: 15 epochs of Adam, or 200 of SGD, the rate falling by epochs;
what is done to the images beside flips and shifts (nothing) is `assumed`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments import runs
from experiments.configs import ddae_fashion_mnist, finetune

EPOCHS = {"ddae": 15, "wrn": 200}
EXAMPLES = 60_000  # an epoch, where no run says how many there are


def get_config(place: str = "") -> ConfigDict:
    """The config of the run in this folder, turned to classification. ValueError where it is not a DDAE's."""
    where, _, backbone = place.partition(",")
    workdir, _, step = where.partition("@")
    config, examples, backbone = ddae_fashion_mnist.get_config(), EXAMPLES, backbone or "ddae"
    if backbone not in EPOCHS:
        raise ValueError(f"noisy_classifier: expected the backbone {' or '.join(EPOCHS)}, found {backbone!r}")
    if workdir:
        saved = runs.read_config(Path(workdir))
        config, examples = runs.restored(saved["config"]), saved["data_info"]["sizes"]["train"]
        if config.method != "ddae":
            raise ValueError(f"{workdir} must be a run of config.method='ddae', found {config.method!r}")
        config.supervised.classes = tuple(saved["data_info"]["labels"].values())
        config.noisy_classifier.step = int(step) if step else finetune.newest(Path(workdir))
    config.method = "noisy_classifier"
    config.noisy_classifier.update(workdir=workdir, backbone=backbone)
    config.data.update(pair="augment", crop_prob=1.0, crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0))
    config.data.update(randaugment_prob=0.0, flip_prob=0.5, augment_target=False)
    adam = {"name": "adamw", "learning_rate": 4e-3, "b2": 0.999, "weight_decay": 0.0, "warmup_images": 0}
    sgd = {
        "name": "sgd",
        "momentum": 0.9,
        "decay": "l2",
        "learning_rate": 0.1,
        "weight_decay": 5e-4,
        "warmup_images": 5 * examples,
    }
    config.optimizer.update(adam if backbone == "ddae" else sgd)
    config.optimizer.update(b1=0.9, nesterov=False, clip=0.0, schedule="cosine", hold_images=examples)
    config.ema.update(decay=0.0, ramp="tens")  # none
    config.train.update(images=EPOCHS[backbone] * examples, minutes=0.0, batch=512, accumulation=1)
    config.train.log_every_images = examples
    config.checkpoint.every_images = 5 * examples
    config.samples.every_images = 0
    config.monitor.every_images = 0
    return config
