"""DDAE on CIFAR-10 as its authors train it in the EDM framework (arXiv 2303.09769, their released code).

    python -m experiments.train --config=experiments/configs/ddae_cifar10_edm.py --workdir=runs/ddae_cifar10_edm
    python -m experiments.train --config=experiments/configs/ddae_cifar10_edm.py:ddpmpp --workdir=...

As ddae_cifar10_ddpm.py, but for the framework, whose 18 levels are those of its sampler (Heun, 35 calls). They report
90.44% (ddpm) and 94.50% (ddpmpp) after 1,200 epochs, at `out_7` and level 4. Expected cost: not run here. Values are
`paper` (of the code) but for dtype, which is `assumed`.
"""

from ml_collections import ConfigDict

from experiments.configs import ddae_cifar10_ddpm


def get_config(network: str = "ddpm") -> ConfigDict:
    """The recipe of a network."""
    config = ddae_cifar10_ddpm.get_config(network)
    config.model.dropout = 0.13
    config.diffusion.update(framework="edm", schedule="edm", steps=18)
    config.ddae.update(tap="out_7", level=4)
    config.optimizer.warmup_images = 200 * ddae_cifar10_ddpm.IMAGES
    config.ema.decay = 0.9993
    config.samples.update(sampler="heun", steps=18)
    return config
