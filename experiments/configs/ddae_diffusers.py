"""A DDAE that begins with the weights of a diffusers U-Net, such as google/ddpm-cifar10-32.

    python -m experiments.convert --init=PATH --workdir=runs/ddpm
    python -m experiments.train --config=experiments/configs/ddae_diffusers.py:PATH --workdir=runs/ddpm --init=PATH

Behind the colon stands the folder (config.json, diffusion_pytorch_model.*), whose sizes, noise and way of telling time
these are; the rest is that of ddae_cifar10_ddpm.py. The tap, halfway up, and the level are `assumed`: search them with
experiments.probe --grid.
"""

from ml_collections import ConfigDict

from experiments import diffusers_nets
from experiments.configs import ddae_cifar10_ddpm


def get_config(init: str = "") -> ConfigDict:
    """The config of this net; without a folder that of google/ddpm-cifar10-32. Raises what reading its files raises."""
    config = ddae_cifar10_ddpm.get_config()
    config.model.update(layout="ddpm", dtype="float32")
    if init:
        with config.unlocked():
            config.update_from_flattened_dict(diffusers_nets.keys_of(diffusers_nets.Folder.of(init)))
        config.ddae.init = init
    levels, blocks = len(config.model.multipliers), config.model.blocks
    config.ddae.tap = f"out_{max(1, levels * (blocks + 1) // 2)}"
    return config
