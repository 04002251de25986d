"""DDAE on CIFAR-10 with a diffusion transformer in place of the U-Net: DiT (arXiv 2212.09748), by default DiT-S/2.

    python -m experiments.train --config=experiments/configs/ddae_cifar10_dit.py --workdir=runs/ddae_dit
    python -m experiments.train --config=experiments/configs/ddae_cifar10_dit.py:B --workdir=...
    python -m experiments.train --config=experiments/configs/ddae_cifar10_dit.py --config.ddae.classes=10 --workdir=...
    python -m experiments.probe --workdir=runs/ddae_dit --grid

Behind the colon stands the size: S (33 M parameters), B, L or XL. It works on pixels, 2 x 2 of them a token, so that
there are 256 tokens as in the paper, and is told of no class, unless ddae.classes says how many there are: then it
draws by class, with samples.guidance more so, and its features are those of an image without a class. Data and noise
are those of ddae_cifar10_ddpm.py; rate, batch, averaging and no dropout those of the DiT paper, for ImageNet. All of it
is `assumed` here, the tap, halfway through the blocks, and its level first of all: find them with --grid. Expected
cost: not run here.
"""

from ml_collections import ConfigDict

from experiments import networks
from experiments.configs import ddae_cifar10_ddpm


def get_config(size: str = "S") -> ConfigDict:
    """The recipe of a size."""
    config = ddae_cifar10_ddpm.get_config()
    config.model.update(denoiser="dit", dit_size=size, patch=2, dropout=0.0)
    config.ddae.update(tap=networks.dit(config.model, 3).middle, level=11)
    config.optimizer.update(learning_rate=1e-4, warmup_images=0, hold_images=0)
    config.ema.update(decay=0.9999, ramp="tens")
    config.train.batch = 256
    return config
