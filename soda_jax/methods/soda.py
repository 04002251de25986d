"""SODA (arXiv 2311.17901): an encoder turns a source view into z, which guides a denoiser of the target view.

    z      = E(x' + s n'),  n' ~ N(0, I)                              (1)  source view, s = source_noise
    xt     = alpha(t) x0 + sigma(t) eps,  eps ~ N(0, I)               (2)  target view
    z~_i   = m_i m z_i,  m_i ~ B(1 - mask_section),  m ~ B(1 - mask_all)  (3)  masked section = zero vector
    L      = mean | target - D([xt, rays], t, z~) |^2                 (4)  target: eps, x0 or v
    eps^   = (1 + w) eps(xt, t, z) - w eps(xt, t, z without some sections)  (5)  guidance

Section z_i modulates one mirrored pair of the denoiser's layers; z itself is never noised. Where the cameras of both
views are known, the denoiser may see the rays of the view that it is to paint (nn/rays.py), as further channels.
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Key

from soda_jax.diffusion.process import Prediction, convert, corrupt, target_of
from soda_jax.diffusion.samplers import Sampler, guided, sample
from soda_jax.diffusion.schedules import Schedule
from soda_jax.diffusion.timesteps import draw_times
from soda_jax.methods.base import BatchSpec, Scalar, to_float
from soda_jax.nn.modulation import check_latent_size
from soda_jax.nn.rays import Rays, View
from soda_jax.types import Batch, Bytes, Features, Image, Keys, Latent, Tree

TIME, NOISE, MASK, SOURCE, DROPOUT = range(5)  # streams of one example's key


@dataclass(frozen=True, kw_only=True)
class Guidance:
    """Classifier-free guidance (5). ValueError for an interval that is none, or a rescale outside 0..1.

    weight: w. sections: those that the unconditional branch loses (None: all). interval: of t, both ends included,
    within which it guides (arXiv 2404.07724). rescale: see `samplers.guided`.
    """

    weight: float = 0.0
    sections: tuple[int, ...] | None = None
    interval: tuple[float, float] = (0.0, 1.0)
    rescale: float = 0.0

    def __post_init__(self):
        low, high = self.interval
        if not 0 <= low < high <= 1:
            raise ValueError(
                f"samples.guidance_interval must be (low, high) of t within 0..1, found {self.interval}"
            )
        if not 0 <= self.rescale <= 1:
            raise ValueError(f"samples.guidance_rescale must be 0 to 1, found {self.rescale}")

    def weight_at(self, t: Float[Array, " b"]) -> Float[Array, " b"]:
        """w inside the interval, 0 outside."""
        low, high = self.interval
        return jnp.where((t >= low) & (t <= high), self.weight, 0.0)


@dataclass(frozen=True, kw_only=True)
class SODA:
    """SODA with layer modulation and section masking.

    encoder: `(images, train) -> (z [b, s*d], features)`, with a field `latent_dim`.
    denoiser: `(xt, t, z [b, s, d], train) -> (prediction, features)`, with a property `sections`.
    mask_section, mask_all: probabilities in [0, 1).
    source_noise: standard deviation, in units of [-1, 1] images.
    rays: of the target, which the denoiser sees beside xt; None: it is not told the view, and needs no cameras.
    Raises ValueError when the latent cannot be cut into the sections or a probability is out of range.
    """

    encoder: nn.Module
    denoiser: nn.Module
    schedule: Schedule
    prediction: Prediction = "eps"
    loss_in: Prediction = "eps"
    mask_section: float = 0.1
    mask_all: float = 0.1
    source_noise: float = 0.1
    rays: Rays | None = None

    def __post_init__(self):
        check_latent_size(self.encoder.latent_dim, self.sections)
        for name in ("mask_section", "mask_all"):
            check_probability(name, getattr(self, name))
        if not self.source_noise >= 0:
            raise ValueError(f"model.source_noise must be 0 or more, found {self.source_noise}")

    @property
    def sections(self) -> int:
        """Number of sections of z: one per mirrored pair of layers, and one for the middle."""
        return self.denoiser.sections

    @property
    def section_dim(self) -> int:
        """Width of one section."""
        return self.encoder.latent_dim // self.sections

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables; parameters do not depend on the batch size of the spec."""
        encoder_key, denoiser_key = jax.random.split(key)
        source, target = (jnp.zeros((1, *spec[name].shape[1:])) for name in ("source", "target"))
        if self.rays:
            target = jnp.pad(target, ((0, 0), (0, 0), (0, 0), (0, self.rays.channels)))
        z = jnp.zeros((1, self.sections, self.section_dim))
        encoder = self.encoder.init(encoder_key, source, train=False)
        denoiser = self.denoiser.init(denoiser_key, target, jnp.zeros(1), z, train=False)
        return {
            "params": {"encoder": encoder["params"], "denoiser": denoiser["params"]},
            "batch_stats": {"encoder": encoder["batch_stats"]} if "batch_stats" in encoder else {},
        }

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """(4), averaged. Without `train`: no masking, source noise or dropout, and stored statistics."""
        source = to_float(batch["source"])
        if train and self.source_noise:
            source += self.source_noise * normal_like(stream(keys, SOURCE), source)  # (1)
        z, batch_stats = self.latent_and_stats(variables, source, train)
        if train:
            z = drop(z, draw_mask(stream(keys, MASK), self.sections, self.mask_section, self.mask_all))
        loss = jnp.mean(self.loss_given_latent(variables, z, batch, keys, train))
        metrics = {"z_square": jnp.mean(jnp.square(z))}
        return loss, {"metrics": metrics, "batch_stats": batch_stats}

    def loss_given_latent(
        self, variables: Tree, z: Latent, batch: Batch, keys: Keys, train: bool = False
    ) -> Float[Array, " b"]:
        """(4) of each example with z taken as it is: nothing is masked here."""
        x0 = to_float(batch["target"])
        t = draw_times(self.schedule, stream(keys, TIME))
        eps = normal_like(stream(keys, NOISE), x0)
        xt = corrupt(self.schedule, x0, eps, t)  # (2)
        logsnr = self.schedule.logsnr(t)
        dropout = {"dropout": jax.random.fold_in(keys[0], DROPOUT)} if train else None
        out = self._predict(variables, xt, t, z, self.view(batch, x0.shape), train, dropout)
        error = convert(out, self.prediction, self.loss_in, xt, logsnr) - target_of(
            self.loss_in, x0, eps, logsnr
        )
        return jnp.mean(jnp.square(error), axis=(1, 2, 3))

    def encode(self, variables: Tree, images: Image | Bytes) -> Features:
        """Every named feature of the encoder in eval mode; z is flat `[b, s*d]`."""
        z, features = self.encoder.apply(encoder_variables(variables), to_float(images), train=False)
        return {**features, "z": z}

    def latent(self, variables: Tree, source: Image | Bytes) -> Latent:
        """z of clean sources in eval mode, cut into sections."""
        return self.latent_and_stats(variables, to_float(source), train=False)[0]

    def latent_and_stats(self, variables: Tree, source: Image, train: bool) -> tuple[Latent, Tree]:
        """z, and the BatchNorm statistics after this batch (as they were when not training)."""
        mutable = ["batch_stats"] if train else []
        (z, _), new = self.encoder.apply(encoder_variables(variables), source, train=train, mutable=mutable)
        stats = {"encoder": new["batch_stats"]} if "batch_stats" in new else variables["batch_stats"]
        return z.reshape(-1, self.sections, self.section_dim), stats

    def view(self, cameras: Batch, shape: tuple[int, ...]) -> View | None:
        """The rays of targets of this shape [b, h, w, c]; None where the denoiser is not told the view.

        Raises ValueError where it is and `cameras` does not hold what `nn.rays.CAMERAS` names.
        """
        return self.rays(cameras, *shape[1:3]) if self.rays else None

    def denoise(
        self, variables: Tree, xt: Image, t: Float[Array, " b"], z: Latent, view: View | None = None
    ) -> Image:
        """The denoiser's estimate of eps, in eval mode, whatever it predicts; view: as `self.view` makes it."""
        out = self._predict(variables, xt, t, z, view, False, None)
        return convert(out, self.prediction, "eps", xt, self.schedule.logsnr(t))

    def generate(
        self,
        variables: Tree,
        z: Latent,
        sampler: Sampler,
        key: Key[Array, ""],
        shape: tuple[int, int, int],
        *,
        guidance: Guidance | float = 0.0,
        noise: Image | None = None,
        cameras: Batch | None = None,
        on_step: Callable | None = None,
    ) -> Image:
        """Images `[b, *shape]` in [-1, 1] of these latents.

        guidance: of (5), or its w alone; w = 0 calls the denoiser once a step.
        noise: the images at t = 1, drawn from `key` when None. on_step: see `sample`.
        cameras: what `nn.rays.CAMERAS` names, `[b, ...]`; only a method with `rays` looks at them.
        Raises ValueError when a section of the guidance does not exist, or cameras are needed and missing.
        """
        noise_key, step_key = jax.random.split(key)
        if noise is None:
            noise = jax.random.normal(noise_key, (z.shape[0], *shape))
        guidance = Guidance(weight=guidance) if isinstance(guidance, float) else guidance
        without = drop(z, keep_all_but(self.sections, guidance.sections)[None])
        view = self.view(cameras or {}, noise.shape)

        def denoise(xt: Image, t: Float[Array, " b"]) -> Image:
            eps = self.denoise(variables, xt, t, z, view)
            if not guidance.weight:
                return eps
            unled = self.denoise(variables, xt, t, without, view)
            return guided(eps, unled, guidance.weight_at(t), guidance.rescale)

        return sample(denoise, self.schedule, sampler, noise, step_key, on_step=on_step)

    def _predict(self, variables, xt, t, z, view, train, rngs) -> Image:
        params = {"params": variables["params"]["denoiser"]}
        seen = xt if view is None else jnp.concatenate([xt, view], -1)
        return self.denoiser.apply(params, seen, t, z, train=train, rngs=rngs)[0]


def check_probability(name: str, value: float) -> None:
    """Raise ValueError unless 0 <= value < 1: with 1, nothing of z would ever be seen."""
    if not 0 <= value < 1:
        raise ValueError(f"model.{name} must be a probability in [0, 1), found {value}")


def encoder_variables(variables: Tree) -> Tree:
    """What the encoder's `apply` takes; the denoiser's variables may be absent."""
    params = {"params": variables["params"]["encoder"]}
    stats = variables["batch_stats"]
    return {**params, "batch_stats": stats["encoder"]} if stats else params


def stream(keys: Keys, number: int) -> Keys:
    """The keys of one kind of draw."""
    return jax.vmap(lambda key: jax.random.fold_in(key, number))(keys)


def normal_like(keys: Keys, images: Image) -> Image:
    """N(0, I), each example from its own key."""
    return jax.vmap(lambda key: jax.random.normal(key, images.shape[1:]))(keys)


def draw_mask(keys: Keys, sections: int, mask_section: float, mask_all: float) -> Bool[Array, "b s"]:
    """(3): True where a section stays."""
    draws = jax.vmap(lambda key: jax.random.uniform(key, (sections + 1,)))(keys)
    return (draws[:, :-1] >= mask_section) & (draws[:, -1:] >= mask_all)


def drop(z: Latent, keep: Bool[Array, "#b s"]) -> Latent:
    """Zero vectors where `keep` is False."""
    return jnp.where(keep[..., None], z, 0.0)


def keep_all_but(sections: int, dropped: tuple[int, ...] | None) -> Bool[Array, " s"]:
    """True for the sections that are not dropped; None drops all. ValueError for one that does not exist."""
    if dropped is None:
        return jnp.zeros(sections, bool)
    wrong = [i for i in dropped if not 0 <= i < sections]
    if wrong:
        raise ValueError(f"samples.guide_sections must lie in 0..{sections - 1}, found {wrong}")
    return jnp.asarray([i not in dropped for i in range(sections)])
