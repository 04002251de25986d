"""Every method, tiny: a later one joins the tests of devices, of collectives and of golden steps by one line here."""

from tests import tiny

METHODS = {
    "soda": tiny.soda(encoder=tiny.Encoder(batch_norm=True), denoiser=tiny.Denoiser(dropout=0.1)),
}
