"""Every method, tiny: a later one joins the tests of devices, of collectives and of golden steps by one line here."""

from soda_jax.methods.autoencoder import Autoencoder
from soda_jax.methods.edm_augment import LABELS, Augment
from soda_jax.methods.noise_levels import NoiseLevels
from soda_jax.methods.regressor import Regressor
from soda_jax.nn.rays import Rays
from soda_jax.nn.wide_resnet import WideResNet
from tests import tiny

METHODS = {
    "soda": tiny.soda(encoder=tiny.Encoder(batch_norm=True), denoiser=tiny.Denoiser(dropout=0.1)),
    "soda_posed": tiny.soda(denoiser=tiny.Denoiser(channels=1), rays=Rays(scale=2.0)),
    "regressor": tiny.regressor(Regressor),
    "soda_sources": tiny.with_sources(tiny.TwoSources),
    "soda_learned": tiny.soda(
        noise_levels=NoiseLevels(kind="learned", bins=4), joint_prior=tiny.joint_prior()
    ),
    "ddae": tiny.ddae(),
    "latent_prior": tiny.prior(loss_kind="l2"),  # the gradient of l1 jumps, where rounding decides
}
# Networks and data paths of these are tried above, so one mesh is enough ...
OTHERS = {
    "ddae_edm": tiny.ddae(
        "edm", net={"resample": "block", "label_dim": LABELS}, augment=Augment(probability=0.5)
    ),
    "autoencoder": tiny.regressor(Autoencoder),
    "supervised": tiny.supervised(),
    "finetuned": tiny.supervised(tiny.ddae(draws=0).tapped()),
    "wide": tiny.supervised(WideResNet(depth=10, widen=1, latent_dim=6, stem="strided")),
    "soda_dit": tiny.soda(denoiser=tiny.dit()),
    "ddae_dit": tiny.ddae(
        denoiser=tiny.dit(label_dim=LABELS), tap="block_1", augment=Augment(probability=0.5)
    ),
    "ddae_classes": tiny.ddae(denoiser=tiny.dit(class_count=2), tap="block_1", class_dropout=0.3),
    "segmentation": tiny.dense("segmentation"),
    "landmarks": tiny.dense("landmarks"),
}
# ... and this one exchanges a number of every row between devices, which those above do not: the loss, to remember.
OTHERS |= {"soda_resampled": tiny.soda(noise_levels=NoiseLevels(kind="resampled", bins=4))}
# Three rows of the denoiser are of one example.
OTHERS |= {"soda_draws": tiny.soda(draws=3)}
# These hold the codes of all rows against each other. What lies before a BatchNorm has gradients that are rounding (a
# bias) or nearly so, of which Adam makes whole steps: test_siamese.py compares their gradients on devices instead.
SIAMESE = {name: tiny.siamese(name) for name in ("simclr", "vicreg", "byol")}
