"""A config that a pod would laugh at, for `experiments.compile`: SODA on images of 8 pixels."""

from experiments.configs import default


def get_config():
    """The default, tiny, in bfloat16; two images a device on four devices."""
    c = default.get_config()
    c.data.update(name="nowhere", image_size=8, source_size=8, channels=1)
    c.model.update(encoder_width=2, stem="strided", latent_dim=6, dtype="bfloat16")
    c.model.update(channels=4, multipliers=(1,), attention=(False,), blocks=1, groups=2)
    c.train.update(batch=8)
    return c
