"""RepFusion on Fashion-MNIST, sized for two CPU cores: SODA's encoder learns from a trained DDAE.

    python -m experiments.train --config=experiments/configs/ddae_fashion_mnist.py --workdir=runs/ddae
    python -m experiments.train --config=experiments/configs/repfusion_fashion_mnist.py:runs/ddae --workdir=runs/fusion

Behind the colon stands the workdir of the teacher, whose sizes are those of its config.json; without it they are those
of ddae_fashion_mnist.py, and `--config.teacher.workdir` has to name the run. The labels choose times, and train the
student through these alone. The clean image and the tap are the paper's, of the released code; the rest is `assumed`.
"""

from pathlib import Path

from ml_collections import ConfigDict

from experiments import runs, teachers
from experiments.configs import ddae_fashion_mnist, siamese_fashion_mnist


def get_config(workdir: str = "") -> ConfigDict:
    """The recipe of the methods of two views, turned to distillation from this run."""
    theirs = (
        runs.restored(runs.read_config(Path(workdir))["config"])
        if workdir
        else ddae_fashion_mnist.get_config()
    )
    config = siamese_fashion_mnist.get_config()
    config.method = "repfusion"
    config.teacher.update(workdir=workdir, **teachers.teacher_keys(theirs), dtype="float32")
    config.teacher.tap = teachers.usual_tap(config)
    config.repfusion.update(time="rl", entropy_images=500_000)
    config.data.update(source_size=32, image_size=32)
    config.train.batch = 128
    return config
