"""The keys of the methods beside SODA. default.py puts them beside its own, and what it says of values holds here."""

from ml_collections import ConfigDict


def siamese() -> ConfigDict:
    """Of method=simclr, byol and vicreg, on SODA's encoder and views."""
    siamese = ConfigDict()
    siamese.projector = (512, 128)  # widths of what sees z in training only
    siamese.temperature = 0.2  # of simclr
    siamese.predictor = (512, 128)  # of byol: widths of what answers the averaged networks
    siamese.momentum = 0.99  # of byol's averaged networks, at the start; rises to 1 at train.images
    return siamese


def supervised() -> ConfigDict:
    """Of every method that looks at labels: supervised, repfusion, finetune, noisy_classifier."""
    return ConfigDict({"classes": (10,)})  # how many each label of the data set has, in its order


def finetune() -> ConfigDict:
    """Of method=finetune: a trained encoder, or a DDAE up to its tap, and heads for the labels, all of it trained."""
    finetune = ConfigDict()
    finetune.workdir = ""  # the run that it begins with, and the step of its checkpoint
    finetune.step = 0
    finetune.method = "soda"  # of that run
    finetune.start = "trained"  # trained | scratch: the same networks, fresh, to compare with
    finetune.feature = "pooled"  # what the heads see: pooled | z; of a DDAE always the tap
    finetune.fraction = (
        1.0  # of the training examples, in (0, 1]; of each class alike where there is one label
    )
    finetune.shots = 0  # examples of each class instead; 0: by fraction
    finetune.layer_decay = 0.75  # factor of the rate from each layer to the one below it; 1: none
    return finetune


def noisy_classifier() -> ConfigDict:
    """Of method=noisy_classifier: how far a DDAE's features, or a classifier of its own, know classes through noise."""
    noisy = ConfigDict()
    noisy.workdir = ""  # the DDAE run whose averaged net is read at ddae.tap, and the step of its checkpoint
    noisy.step = 0
    noisy.backbone = (
        "ddae"  # ddae: a head on that net, which is frozen | wrn: a wide ResNet, trained from scratch
    )
    noisy.shift = (
        4  # pixels that training images are moved by at most, each way (paper: a crop with this padding)
    )
    noisy.depth = 28  # of wrn (paper), 6 n + 4
    noisy.width = 10  # of wrn (paper), times 16 channels
    return noisy


def dense() -> ConfigDict:
    """Of method=dense: heads for pixels and points on the encoder of a run, which `finetune` names.

    finetune.start, fraction and layer_decay hold here as well.
    """
    dense = ConfigDict()
    dense.task = "segmentation"  # segmentation (of masks) | landmarks (heat maps of keypoints)
    dense.frozen = False  # True: the head alone is trained
    dense.classes = 3  # what the data set has: classes of masks, the background among them ..
    dense.points = 6  # .. keypoints ..
    dense.pairs = ((2, 3),)  # .. numbers of those that a mirror image exchanges ..
    dense.upright = True  # .. and whether they are extremes of the upright image, which must not be turned
    dense.width = 64  # channels of the head
    dense.stride = (
        2  # pixels of the image to one of the spatial path and of heat maps (papers: 8 and 4); a power of 2
    )
    dense.auxiliary = 1.0  # weight of the losses of early answers (paper of BiSeNet: 1)
    dense.sigma = 2.0  # of heat maps, in their pixels (paper)
    dense.decoding = "soft"  # of heat maps: soft (mean around the largest value) | quarter (of a pixel)
    dense.rotation = 0.0  # degrees at most by which training images are turned (paper, landmarks: 30)
    dense.zoom = 0.2  # they are scaled by 1 - zoom to 1 + zoom (paper, landmarks: 0.25)
    dense.mirror = 0.5  # probability that they are mirrored
    dense.colour = 0.0  # largest change of brightness, contrast and colour; 0: none
    return dense


def repfusion() -> ConfigDict:
    """Of method=repfusion (arXiv 2308.10916): how a student, which is the encoder, learns from a diffusion net."""
    repfusion = ConfigDict()
    repfusion.distance = "hint"  # of features: hint (paper) | hint_dense | at | rkd
    repfusion.weight = 1.0  # of it
    repfusion.time = "rl"  # what the teacher is asked for: rl (paper): chosen by image | uniform | fixed
    repfusion.t = 0  # fixed: 0 .. T - 1
    repfusion.t_max = 50  # uniform: below it
    repfusion.entropy = 0.1  # rl: weight of the policy's entropy at first (paper) ..
    repfusion.entropy_images = 5_000_000  # .. which falls to 0 within so many images (paper: 100 epochs)
    repfusion.baseline = False  # rl: rewards are held against the mean of the batch (paper: not)
    # what the teacher is shown: symmetric: images in [-1, 1], as it was trained (paper: CIFAR-10) | imagenet: scaled by
    # ImageNet's mean and deviation, which it never saw (paper: Tiny-ImageNet, CelebA-HQ). The authors' teacher on
    # Tiny-ImageNet was told the image's label too; the teachers here, DDAE runs, are told none.
    repfusion.input = "symmetric"
    return repfusion


def teacher() -> ConfigDict:
    """Of method=repfusion: a trained DDAE run. Keys as in `model` and `diffusion`, and alike to those of the run."""
    teacher = ConfigDict()
    teacher.workdir = ""  # the run whose averaged net is frozen
    teacher.image_size = 32  # pixels a side that it knows
    teacher.tap = "middle/branch"  # what is distilled (paper)
    teacher.update(denoiser="unet", dit_size="S", dit_width=384, dit_depth=12, dit_heads=6)
    teacher.update(channels=128, multipliers=(1, 2, 2, 2), blocks=2, attention=(False, True, False, False))
    teacher.update(
        head_channels=0, resample="conv", patch=1, layout="ddae", dropout=0.0, dtype="bfloat16"
    )  # dtype: ours to choose
    teacher.label_dim = 0  # 9 of a net that was trained with ddae.augment
    teacher.self_condition = ""  # that of ddae
    teacher.classes = 0  # likewise
    teacher.update(framework="ddpm", schedule="linear", steps=1000, prediction="eps")
    return teacher


def ddae() -> ConfigDict:
    """Of method=ddae: where features are read (arXiv 2303.09769). probe --grid finds the best place."""
    ddae = ConfigDict()
    ddae.init = (
        ""  # weights that training begins with, as --init=PATH (experiments/convert.py); "": fresh ones
    )
    ddae.tap = "out_6"  # block of the U-Net: in_1, ..., middle, out_1, ...; of a DiT: block_0 (patches), block_1, ...
    ddae.level = 11  # noise, 1 (almost clean) to diffusion.steps
    ddae.draws = 1  # of noise, whose features are averaged (paper: 1); 0: clean images
    ddae.augment = (
        0.0  # EDM's augmentation, of which the net is told: the probability p (paper: 0.12); 0: none
    )
    # the block, named as in `tap`, whose mean over the pixels joins what all later blocks are told of time, inspired by
    # DDAE++ (arXiv 2505.10999): middle, ...; of a DiT: block_6, ...; "": none
    ddae.self_condition = ""
    ddae.self_gradient = (
        True  # whether the gradient goes through that mean; False: what reads it alone learns
    )
    # of the data set's label, which a DiT is told in training, so that it can draw by class; 0: of none (paper).
    # Features are always those of an image without a class
    ddae.classes = 0
    ddae.class_dropout = (
        0.1  # probability that no class is told in training, for guidance; [0, 1) (paper of DiT)
    )
    return ddae


def prior() -> ConfigDict:
    """Of method=latent_prior: a diffusion model of z (Diff-AE, arXiv 2111.15640, whose sizes these are)."""
    prior = ConfigDict()
    prior.workdir = ""  # the trained SODA run whose encoder is frozen, and which decodes
    prior.layers = 10  # of the perceptron
    prior.width = 2048  # of its hidden layers
    prior.prediction = "eps"  # eps | x0 | v
    prior.loss = "l1"  # l1 | l2: of the error in what is predicted
    prior.schedule = "constant"  # constant | linear | cosine | inverted; diffusion.schedule is that of images
    prior.steps = 1000  # T; 0: continuous time
    return prior
