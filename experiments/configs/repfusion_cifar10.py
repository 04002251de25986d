"""RepFusion on CIFAR-10 (arXiv 2308.10916) from a DDAE run, as its released code distils, or with its oddities mended.

    python -m experiments.train --config=experiments/configs/ddae_cifar10_ddpm.py --workdir=runs/ddae_cifar10
    python -m experiments.train --config=experiments/configs/repfusion_cifar10.py:runs/ddae_cifar10,paper --workdir=DIR

Behind the colon stand the workdir of the teacher and, after a comma, the variant; either may be missing. Without the
workdir the teacher's sizes are those of ddae_cifar10_ddpm.py, and `--config.teacher.workdir` has to name the run.

    paper    SGD 0.1 with momentum 0.9, decay 1e-4 of all arrays, times 0.1 at epochs 100 and 150 of 200; batch 128;
             crops of 32 pixels out of 40, and flips; hint loss; the policy's entropy weighs 0.1, and nothing from
             epoch 100 on; averages by mmcv's ramp, which leaves BatchNorm's statistics those of the newest step
    fixed    (the default) the same, but for rewards that are held against their mean, and averages that forget where
             they began and hold the statistics too

Other students: --config.model.encoder=mobilenetv2 or wrn_28_2. On Tiny-ImageNet and faces their code shows the teacher
images as classifiers see ImageNet: --config.repfusion.input=imagenet. Here the entropy's weight falls with every
update, there with every epoch. Expected cost: not run here. Values are `paper` (of the code) but for what is `fixed`,
and `assumed`: the teacher, who there is another net of the same architecture, and the width of z, which is not trained.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments import runs, teachers
from experiments.configs import ddae_cifar10_ddpm, default

IMAGES = 50_000
VARIANTS = ("fixed", "paper")


def get_config(argument: str = "") -> ConfigDict:
    """The recipe, from the teacher in this workdir. ValueError for another variant."""
    workdir, variant = parsed(argument)
    theirs = (
        runs.restored(runs.read_config(Path(workdir))["config"])
        if workdir
        else ddae_cifar10_ddpm.get_config()
    )
    config = default.get_config()
    config.method = "repfusion"
    config.data.update(name="cifar10", image_size=32, source_size=32, channels=3, pair="augment", workers=8)
    config.data.update(crop_prob=1.0, crop_pad=4, flip_prob=0.5, randaugment_prob=0.0)
    config.model.update(encoder="resnet18", stem="small", residual_gain=0.0)
    config.teacher.update(workdir=workdir, **teachers.teacher_keys(theirs), dtype="float32")
    config.teacher.tap = teachers.usual_tap(config)
    config.repfusion.update(distance="hint", weight=1.0, time="rl", entropy=0.1, entropy_images=100 * IMAGES)
    config.supervised.classes = (10,)
    config.optimizer.update(name="sgd", learning_rate=0.1, encoder_ratio=1.0, momentum=0.9)
    config.optimizer.update(weight_decay=1e-4, decay="l2", decayed="all", clip=0.0, warmup_images=0)
    config.optimizer.update(schedule="steps", step_at=(100 * IMAGES, 150 * IMAGES))
    config.train.update(images=200 * IMAGES, batch=128, log_every_images=51_200)
    config.checkpoint.every_images = 20 * IMAGES
    config.samples.every_images = 0
    config.monitor.every_images = 20 * IMAGES
    paper = variant == "paper"
    config.ema.update(decay=0.999, ramp="mmcv" if paper else "tens", batch_stats=not paper)
    config.repfusion.baseline = not paper
    return config


def parsed(argument: str) -> tuple[str, str]:
    """Workdir and variant of "WORKDIR,VARIANT", either of which may be missing. ValueError for another variant."""
    workdir, comma, variant = argument.rpartition(",")
    if not comma:
        return ("", argument) if argument in VARIANTS else (argument, VARIANTS[0])
    if variant not in VARIANTS:
        raise ValueError(
            f"repfusion_cifar10: expected WORKDIR,{' or WORKDIR,'.join(VARIANTS)}, found {argument!r}"
        )
    return workdir, variant
