"""A DDAE that begins with the public weights of ADM (arXiv 2105.05233): RepFusion's teacher on Tiny-ImageNet.

    python -m experiments.convert --init=64x64_diffusion.pt --workdir=runs/adm --config.data.name=tiny_imagenet
    python -m experiments.train --config=experiments/configs/repfusion_cifar10.py:runs/adm --workdir=runs/fusion ...

Behind the colon stands the file, whose sizes these are, and after a comma, of an architecture that was not published,
how the parts of its heads lie (new or legacy); without a file, the net of 64 pixels that knows classes. It is told the
mean of all classes, and has no sigma; RepFusion's authors (2308.10916) tell theirs the labels of another data set.
Schedule and size are those of the published models of 64 (cosine) and 256 pixels (linear); of others set
--config.diffusion.schedule and --config.data.image_size. The tap, halfway up, and the level are `assumed`: search them
with experiments.probe --grid. So is how it is trained further. Expected cost: not run here.
"""

from ml_collections import ConfigDict

from experiments import adm_nets, initial_nets
from experiments.configs import ddae_cifar10_ddpm
from soda_jax.nn.adm_weights import ADM, HEAD
from soda_jax.nn.ddpm_unet import DDPMUNet

SIZES = {"channels": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (False, True, True, True)}


def get_config(argument: str = "") -> ConfigDict:
    """The config of this net. Raises what reading its file raises."""
    net = DDPMUNet(**SIZES, head_channels=HEAD, resample="block", layout="adm")
    keys = initial_nets.net_in(argument).keys if argument else adm_nets.keys_of(ADM(net=net))
    config = ddae_cifar10_ddpm.get_config()
    config.model.dtype = "float32"
    config.data.name = "tiny_imagenet"
    with config.unlocked():
        config.update_from_flattened_dict(dict(keys))
    levels, blocks = len(config.model.multipliers), config.model.blocks
    config.ddae.update(init=argument, tap=f"out_{max(1, levels * (blocks + 1) // 2)}")
    return config
