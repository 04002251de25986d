"""A DDAE that begins with the public weights of a DiT (arXiv 2212.09748), which works on the latents of SD's VAE.

    python -m experiments.encode_latents --vae=sd-vae-ft-mse --data=cifar10 --name=cifar10_latents
    python -m experiments.convert --init=DiT-XL-2-256x256.pt --workdir=runs/dit
    python -m experiments.train --config=experiments/configs/ddae_dit_latents.py:DiT-XL-2-256x256.pt --workdir=runs/dit

Behind the colon stands the file, whose sizes these are, and after a comma the heads of attention, where width and depth
are not those of S, B, L or XL; without a file, DiT-XL/2 of 256 x 256 pixels, whose latents are 32 x 32 x 4. The net is
that of the null class, and has no sigma; with ddae.classes, of a data set with as many, it keeps its classes. Noise
(0-based step 121 of 1000, for CIFAR-10; 81 for Tiny-ImageNet) and tap (block 14 of 28, halfway) are those that DDAE's
authors (2303.09769, released code) read; rate, batch and averaging are those of ddae_cifar10_dit.py, and `assumed`.
Expected cost: not run here.
"""

from ml_collections import ConfigDict

from experiments import initial_nets
from experiments.configs import ddae_cifar10_dit
from soda_jax.nn.dit import SIZES


def get_config(argument: str = "") -> ConfigDict:
    """The config of this net. Raises what reading its file raises."""
    config = ddae_cifar10_dit.get_config("XL")
    config.model.dtype = "float32"
    config.data.update(name="cifar10_latents", channels=4, pair="same")
    config.samples.every_images = 0  # pictures have no four channels
    if argument:
        with config.unlocked():
            config.update_from_flattened_dict(initial_nets.net_in(argument).keys)
        config.ddae.init = argument
    size, c = config.model.dit_size, config.model
    depth = c.dit_depth if size == "custom" else SIZES[size].depth
    config.ddae.update(tap=f"block_{(depth + 1) // 2}", level=122)
    return config
