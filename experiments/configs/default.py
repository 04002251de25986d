"""Every key there is. The other configs are this one with a few lines changed.

A comment gives the unit or the legal values. Everything is `assumed`, for the paper's hyperparameters are
not public, except where a comment says `paper`. Lengths are in images, so that they survive another batch
size.
"""

from ml_collections import ConfigDict

from experiments.configs import other_methods


def get_config() -> ConfigDict:
    """The whole config, locked: a line that changes a key that is not here fails."""
    config = ConfigDict()
    config.seed = 0  # of parameters, data order, views, noise: 0 .. 2^32 - 1
    # soda | ddae | repfusion | latent_prior; to compare with: regressor (paints the mean image at once), autoencoder,
    # simclr, byol, vicreg, supervised; on top of a run of these: finetune, dense, noisy_classifier
    config.method = "soda"
    config.compilation_cache = "default"  # default (the user's cache folder) | "" (off) | a folder
    config.data = data()
    config.model = model()
    config.diffusion = diffusion()
    config.optimizer = optimizer()
    config.ema = ema()
    config.train = train()
    config.checkpoint = checkpoint()
    config.samples = samples()
    config.monitor = monitor()
    config.mesh = mesh()
    config.probe = probe()
    config.disentanglement = disentanglement()
    config.prior = other_methods.prior()
    config.ddae = other_methods.ddae()
    config.siamese = other_methods.siamese()
    config.supervised = other_methods.supervised()
    config.finetune = other_methods.finetune()
    config.noisy_classifier = other_methods.noisy_classifier()
    config.dense = other_methods.dense()
    config.repfusion = other_methods.repfusion()
    config.teacher = other_methods.teacher()
    return config.lock()


def data() -> ConfigDict:
    """What is read, and how two views are made of it."""
    data = ConfigDict()
    data.name = "views3d"  # a prepared data set: views3d | fashion_mnist | a folder's --name | a TFDS name
    data.dir = (
        ""  # where data sets lie; "": the user's cache folder ($SODA_JAX_DATA, else ~/.cache/soda_jax/data)
    )
    data.image_size = 64  # pixels a side of the target, which is denoised
    data.source_size = 64  # pixels a side of the source, which is encoded
    data.zoom = (
        1.0  # how many times as near images are looked at: the middle 1 / zoom of their sides; 1: whole
    )
    data.channels = 3  # 1 grey | 3 RGB: images are converted | 4 of latents, with pair = "same"
    data.train_split = "train"  # as the files call it; slices as in TFDS: train[:90%]
    data.test_split = "test"
    data.workers = 0  # processes that prepare batches; 0: threads of this one do
    data.threads = 2  # that read ahead, in this process or in each worker
    data.prefetch = 64  # examples to read ahead
    # augment: draws of an image | pose: two of a scene or group | pose_augment: both (paper: views)
    # | same: one image twice, an auto-encoder
    data.pair = "pose"
    data.sources = 1  # views that are encoded together, z their mean; more than one needs pair = "pose..."
    data.crop_prob = 0.95  # probability of a random resized crop; of each view, as all of these
    data.crop_scale = (0.08, 1.0)  # share of the area that is kept
    data.crop_ratio = (0.75, 1.3333)  # width / height of the crop
    # pixels of black around the view, out of which a part of the view's size is cropped; 0: crops are resized, by the
    # two above
    data.crop_pad = 0
    data.flip_prob = 0.5  # of a mirror image, given a crop
    data.randaugment_prob = 0.65
    data.randaugment_ops = 2  # operations a draw
    data.randaugment_magnitude = 9  # 0 .. 30
    data.augment_target = True  # False: targets are plain images, better for pictures, worse for classes
    return data


def model() -> ConfigDict:
    """The encoder (paper: a ResNet) and the denoiser (paper: a U-Net with AdaGN and layer modulation).

    A DiT looks at those keys of the denoiser that say so, and at grouping, remat and dtype.
    """
    model = ConfigDict()
    # resnet10 | resnet18 | resnet34 | resnet50 | resnet101 | vit_Ti | vit_S | vit_B | mobilenetv2 | wrn_28_2, or
    # another wrn_<depth>_<widening>, of depth 10, 16, 22, 28, ...
    model.encoder = "resnet18"
    model.encoder_width = 64  # channels of a ResNet's first stage
    model.width_multiplier = 1.0  # of all channels of mobilenetv2
    # of a ResNet: imagenet (7x7 / 2, max-pool) | small (3x3 / 1) | strided (3x3 / 2); of mobilenetv2: imagenet, strided
    # (3x3 / 2) | small (3x3 / 1); of a wrn: small (3x3 / 1) | strided (3x3 / 2)
    model.stem = "small"
    # of a ResNet and mobilenetv2: BatchNorm's scale at the end of each residual branch starts there; 0 .. 1
    model.residual_gain = 1.0
    model.vit_patch = 8  # pixels a side
    model.pooled_norm = (
        False  # of a ResNet: BatchNorm of the pooled features, before the layer that makes z of them
    )
    model.latent_dim = 130  # of z; a multiple of the number of sections (13 here)
    model.denoiser = "unet"  # unet | dit (a diffusion transformer), also of ddae
    # of the dit: S | B | L | XL (32, 130, 457, 674 million parameters at patch 2) | custom: the next three keys
    model.dit_size = "S"
    model.dit_width = 384  # features of a token: a multiple of 4 and of the heads
    model.dit_depth = 12  # blocks
    model.dit_heads = 6  # of attention
    model.channels = 128  # of the U-Net's first level
    model.multipliers = (1, 2, 2, 2)  # of the channels, one a level
    model.blocks = 2  # residual blocks a level, on the way down
    model.attention = (False, True, False, False)  # one a level; the middle always attends
    model.heads = 1  # of attention
    model.groups = 32  # of GroupNorm
    model.dropout = 0.1  # of U-Net and DiT
    model.patch = 1  # 1 | 2 | 4: the U-Net works on p x p pixels at a time; a DiT too: 1 | 2 | 4 | 8
    model.grouping = (
        "per_skip"  # sections of z: per_skip (of a DiT: one a block) | per_level (.. a third of them) | whole
    )
    model.residual_rescale = True  # paper: residual sums / sqrt(2)
    model.mask_section = 0.1  # probability that a section is dropped, each for itself (paper: masking)
    model.mask_all = 0.1  # probability that all of them are
    model.rays = "none"  # of the target, seen by the denoiser; need cameras. paper, which is not known:
    #                      none | concat (direction, origin) | moment (direction, moment)
    #                      | sphere (a point of the ray) | unit_sphere (two angles)
    # source: as the first source's camera sees them | world: in the frame of the data set, for scenes that share a
    # place | both, side by side. What the paper does is not known.
    model.ray_frame = "source"
    model.ray_scale = 1.0  # length in units of the world that counts as 1 in rays
    model.ray_radius = 1.0  # sphere: how far along the ray, in that length
    model.ray_encoding = "none"  # none | sinusoidal (paper) | octaves: cosines and sines of each coordinate
    model.ray_frequencies = 8  # of the encoding, for each coordinate
    model.rgb_projection = 0  # channels that the image is mixed to, beside rays (paper: some); 0: as it is
    model.source_rays = False  # paper: True: the encoder sees the rays of its sources as well
    model.source_lens = ()  # (fx, fy, cx, cy) in sides of the image, of images that are encoded without a
    #                         camera, as the probe does; only source_rays asks for it
    model.cross_attention = (
        False  # paper, for 3-D: True: blocks of the U-Net that attend look at the sources too
    )
    model.consistency = 0.0  # weight of a VICReg loss between the z of both views; 0: off (paper)
    model.projector = (512, 512)  # widths of the layers that this loss sees z through
    model.joint_prior = (
        0.0  # weight of the loss of a diffusion model of z (prior.*) trained along; 0: off (paper)
    )
    model.source_noise = 0.1  # standard deviation, of images in [-1, 1]
    model.resample = "conv"  # of ddae's U-Net, between levels: conv (ddpm) | block (ddpmpp)
    model.head_channels = 0  # of ddae's attention, in each head; 0: one head
    # of ddae's U-Net, constants: ddae (paper) | ddpm (google/ddpm-*) | diffusers (UNet2DModel's) | adm (ADM's; resample
    # "block"); the last three are told whole times
    model.layout = "ddae"
    model.dtype = "float32"  # of the computation: float32 | bfloat16; parameters and norms stay float32
    model.remat = "none"  # none | blocks (less memory, about a third more work)
    return model


def diffusion() -> ConfigDict:
    """The noise, and what the denoiser predicts."""
    diffusion = ConfigDict()
    # of ddae: ddpm: any schedule, prediction is the loss's | edm: schedule "edm", its own preconditioning and loss
    diffusion.framework = "ddpm"
    diffusion.schedule = "inverted"  # inverted (paper) | cosine | linear | constant | edm
    diffusion.steps = 1000  # T; 0: continuous time
    diffusion.prediction = "eps"  # eps (paper) | x0 | v
    diffusion.loss_in = "eps"  # eps (paper) | x0 | v: what the squared error is taken of
    # uniform (paper) | resampled, learned: where the loss varies most, and weighted so that its mean stays what it is
    diffusion.noise_levels = "uniform"
    # of soda: times and noises of each target in a step (paper: 1), each time from another part of 0..1; the encoder
    # reads the source once for all
    diffusion.draws = 1
    diffusion.level_bins = 100  # of t, which resampled and learned tell apart
    return diffusion


def optimizer() -> ConfigDict:
    """AdamW, Muon or SGD."""
    optimizer = ConfigDict()
    optimizer.name = "adamw"  # adamw | muon | sgd
    optimizer.learning_rate = 1e-4  # of the denoiser
    optimizer.encoder_ratio = 2.0  # rate of the encoder / rate of the denoiser
    optimizer.b1 = 0.9
    optimizer.b2 = 0.95
    optimizer.momentum = 0.9  # of muon (whose authors take 0.95 and nesterov) and sgd; 0 .. 1
    optimizer.nesterov = False  # of muon and sgd
    # of muon: kernels with such names (a regular expression); all else is AdamW's
    optimizer.orthogonal = r"^denoiser/(?!.*(time|norm|modulation|labels)).*kernel$"
    optimizer.weight_decay = 0.05
    optimizer.decay = (
        "decoupled"  # decoupled: beside the update | l2: inside of the gradient, as PyTorch's SGD
    )
    optimizer.decayed = "kernels"  # kernels: arrays with more than one axis | all: norms and biases too
    optimizer.clip = 1.0  # largest global norm of the gradient; 0: none
    optimizer.warmup_images = 100_000  # images until the full rate
    # after the warm-up: constant | cosine (to 0 at train.images) | steps: times step_factor at each of step_at
    optimizer.schedule = "constant"
    optimizer.step_at = (0.5, 0.75)  # shares of train.images, where below 1, or images
    optimizer.step_factor = 0.1
    optimizer.hold_images = 0  # the rate changes every so many images only, an epoch say; 0: with every step
    return optimizer


def ema() -> ConfigDict:
    """The average of the parameters, which is what is probed, sampled from and exported."""
    ema = ConfigDict()
    ema.decay = 0.9999
    # of the decay: tens: (1 + step) / (10 + step) | power: 1 - (1 + step)^(-2/3) | mmcv: RepFusion's, which is none at
    # all for a decay of 0.99 or more
    ema.ramp = "tens"
    ema.batch_stats = True  # BatchNorm's statistics too; False: those of the newest step (RepFusion's mmcv)
    return ema


def train() -> ConfigDict:
    """How long, and by how many."""
    train = ConfigDict()
    train.images = 4_000_000  # length of the training
    train.minutes = (
        0.0  # of steps, at most, in one call of the command, which then saves and ends; 0: no limit
    )
    train.batch = 512  # images a step, over all devices
    train.accumulation = 1  # microbatches a step, to save memory
    train.log_every_images = 10_240
    train.allow_config_change = False  # True: go on from a checkpoint that another config made
    train.watchdog_minutes = 30.0  # awake and without progress: say who hangs, and end; 0: never
    return train


def checkpoint() -> ConfigDict:
    """What is kept."""
    return ConfigDict(
        {"every_images": 200_000, "keep": 3}
    )  # 0 images: only at the end; keep: the last so many


def samples() -> ConfigDict:
    """Pictures in workdir/samples: source, target, generated."""
    samples = ConfigDict()
    samples.every_images = 400_000  # and at the end; 0: never
    samples.count = 8  # rows
    samples.sampler = "ddim"  # ddim | ddpm | heun | dpm++2m
    samples.steps = 50  # calls of the denoiser (heun: twice as many; with guidance twice as many again)
    samples.eta = 0.0  # fresh noise of ddim: 0 none .. 1 as ddpm
    samples.churn = (
        0.0  # S_churn of heun: fresh noise, 0 none; S_noise, and the range of sigma / alpha, follow
    )
    samples.churn_noise = 1.0
    samples.churn_range = (0.0, 1e9)
    samples.guidance = 0.0  # w of classifier-free guidance: by z, or by the class (ddae.classes)
    samples.guide_sections = ()  # the sections of z that guidance strengthens; (): all
    samples.guidance_interval = (0.0, 1.0)  # of t: outside of it z is not strengthened
    samples.guidance_rescale = 0.0  # 0..1: how far the deviation of a guided prediction is put back
    samples.variance = "posterior"  # of ddpm's fresh noise: posterior | beta (DDAE's authors)
    # of ddim: even: times from 1 to 0 | ddae: its authors' times, T / steps apart from 1 / T on, and a schedule of
    # their own, for images that compare with theirs; needs diffusion.schedule = "linear" and steps that divide T
    samples.grid = "even"
    samples.clip_x0 = True  # keep the estimates of the image in [-1, 1]
    return samples


def monitor() -> ConfigDict:
    """Does the denoiser listen to z? Written with the metrics, as monitor/..."""
    return ConfigDict({"every_images": 200_000, "batch": 256})  # 0 images: never; batch: test images


def mesh() -> ConfigDict:
    """Devices."""
    mesh = ConfigDict()
    mesh.data = -1  # devices that share the batch; -1: as many as fsdp leaves
    mesh.fsdp = 1  # devices that share each large array (and the batch as well); -1: as many as data leaves
    mesh.smallest = 4 * 2**20  # bytes: arrays below that are whole on every device, unless a rule cuts them
    mesh.rules = ()  # (expression, replicate | fsdp | longest | input | output), ...: before those of sharding.py
    mesh.fold = True  # on fewer devices: accumulate instead; False: refuse
    return mesh


def probe() -> ConfigDict:
    """Linear heads and nearest neighbours on frozen features."""
    probe = ConfigDict()
    probe.batch = 256  # images at a time
    probe.learning_rates = (0.01, 0.03, 0.1, 0.3)  # the grid: every rate with every decay
    probe.weight_decays = (0.0, 1e-5, 1e-4)
    probe.images = 1_000_000  # length of the training of the heads
    probe.holdout = 0.1  # share of the training split that chooses among the heads
    probe.augment = False  # True: one more pass over the training split, with the views of the source
    probe.knn_k = 20
    probe.max_train = 0  # images of the training split; 0: all
    probe.max_test = 0
    probe.seed = 0
    return probe


def disentanglement() -> ConfigDict:
    """Scores of the parts of z: probe --tasks=dci,mig,sap,factor_vae,sections."""
    disentanglement = ConfigDict()
    disentanglement.images = 4000  # of each split, drawn once; 0: all
    # histogram: fast | boosting: exact, as in the literature; minutes a label with ten dimensions, hours with hundreds
    disentanglement.trees = "histogram"
    return disentanglement
