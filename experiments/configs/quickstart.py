"""SODA on views3d, small enough to learn something in four minutes on two CPU cores.

    python -m experiments.quickstart

is the same as: data.prepare views3d, then train, probe, sample and report with this config. Source and
target are two cameras on one scene. Everything is `assumed`.

The middle of each image is looked at (`data.zoom`), where the object is: it fills more of the target, and so of the
loss. The encoder reads 48 x 48 pixels, as they are; the target has 32 x 32, in patches of 4 x 4, because the U-Net is
what takes the time: so more images fit in the minutes. A patch has 48 numbers, so 48 channels let it through; with 64,
an image teaches hardly more, and takes a quarter longer; 32 blur it. The encoder has one residual block a stage: with
two, as in ResNet-18, an image taught as much, and took a fifth longer. Batches of 16 make more steps of the minutes;
of 32, a little faster an image, left shapes blurred. Twice the rate of the recipe with masks brings 0.3 dB of PSNR, and
Muon another 0.5, at no cost in time.

The denoiser sees the rays of the target (`model.rays`): told which view to paint, it can spend z on what is there to
see, floor and wall come to lie where they belong, and a generated picture can be held against the target. They are
rays of the world, for every object stands at its origin, so that z needn't say from where its source was taken; and
rays as the source's camera sees them, so that z can say how the object is turned before that camera (0.15 dB).

It predicts the image, and the loss is that of the image: both weigh high noise, where only z can tell what to
paint, so that z fills early. (To predict v leaves grainy pictures after so little training.) Pictures are drawn with a
little guidance, so that the five drawings of a row agree better on the shape, and in five steps: what a young denoiser
gets wrong adds up over more.

Sections of z are not masked one by one, as the paper does: in so few minutes the denoiser has enough to do with whole
codes, and paints shapes much sooner. All of z is dropped now and then, which guidance needs. Nor is z made of pooled
features as they are: normalised by channel, they tell the denoiser what sets images apart from the first step on, and
shapes come sooner still. And the U-Net has two levels of the same width: with three, and the inner ones twice as wide,
an image taught it no more, and took 1.4 times as long.

`quickstart.py:masked` is the recipe with the masks of the paper, for longer runs and for comparisons: of whole images,
with rays as the source's camera sees them, pooled features as they are, and the larger U-Net. See README.md, Results.
"""

from ml_collections import ConfigDict

from experiments.configs import default

# `--minutes` counts in it. More than two shared cores of 2023 see, so that they stop at the limit of the quickstart.
IMAGES_PER_MINUTE = 25_600
# The denoiser's hidden layers, and the encoder's but for the last stage, whose matrices would take as long as the step.
ORTHOGONAL = r"^(denoiser/(?!.*(time|norm))|encoder/stage[123]).*kernel$"


def get_config(kind: str = "") -> ConfigDict:
    """The default, tiny. kind: "", or "masked". Raises ValueError for another."""
    if kind not in ("", "masked"):
        raise ValueError(f"quickstart.py:{kind}: expected quickstart.py, or quickstart.py:masked")
    config = default.get_config()
    config.data.update(name="views3d", image_size=32, source_size=64, channels=3, pair="pose")
    config.model.update(encoder_width=24, stem="imagenet", residual_gain=0.25, latent_dim=504)
    config.model.update(channels=64, multipliers=(1, 2, 2), blocks=1, patch=4)
    config.model.update(rays="moment", ray_scale=2.0)
    config.model.update(attention=(False, True, False), dropout=0.0, groups=8, source_noise=0.05)
    config.diffusion.update(schedule="linear", prediction="x0", loss_in="x0")
    config.optimizer.update(learning_rate=1e-3, encoder_ratio=0.4, warmup_images=1_000)
    if kind != "masked":
        config.optimizer.update(name="muon", learning_rate=2e-3, momentum=0.95, nesterov=True)
        config.optimizer.orthogonal = ORTHOGONAL
        config.data.update(zoom=4 / 3, source_size=48)
        config.model.encoder = "resnet10"
        config.model.update(mask_section=0.0, mask_all=0.05, pooled_norm=True, ray_frame="both")
        config.model.update(channels=48, multipliers=(1, 1), attention=(False, True), latent_dim=500)
    config.ema.decay = 0.998
    config.train.update(images=4 * IMAGES_PER_MINUTE, batch=16, log_every_images=1_024)
    config.checkpoint.every_images = 2 * IMAGES_PER_MINUTE
    config.samples.update(every_images=0, steps=5, guidance=0.5)
    config.monitor.update(every_images=3_200, batch=64)
    config.probe.update(images=200_000, max_train=8_192, weight_decays=(0.0, 1e-4))
    return config
