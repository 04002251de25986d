"""Every method, tiny: a later one joins the tests of devices, of collectives and of golden steps by one line here."""

from soda_jax.nn.rays import Rays
from tests import tiny

METHODS = {
    "soda": tiny.soda(encoder=tiny.Encoder(batch_norm=True), denoiser=tiny.Denoiser(dropout=0.1)),
    "soda_posed": tiny.soda(denoiser=tiny.Denoiser(channels=1), rays=Rays(scale=2.0)),
}
