"""SODA (arXiv 2311.17901): an encoder turns a source view into z, which guides a denoiser of the target view.

    z      = mean over sources of E([x' + s n', rays]),  n' ~ N(0, I)  (1)  source views, s = source_noise
    xt     = alpha(t) x0 + sigma(t) eps,  eps ~ N(0, I)               (2)  target view
    z~_i   = m_i m z_i,  m_i ~ B(1 - mask_section),  m ~ B(1 - mask_all)  (3)  masked section = zero vector
    L      = mean | target - D([xt, rays], t, z~, c~) |^2             (4)  target: eps, x0 or v
    eps^   = (1 + w) eps(xt, t, z) - w eps(xt, t, z without some sections)  (5)  guidance

Section z_i modulates one mirrored pair of the denoiser's layers, or one block of a DiT; z itself is never noised.
Training takes the mean of (4) over K = `draws` draws of (t, eps, m) for each z, each t from another K-th of those;
the paper has K = 1. Where the cameras of all views are known, the denoiser may see the rays of the view that it is to
paint (nn/rays.py), as further channels, and the encoder those of its sources. With cross-attention the denoiser also
looks at c, the encoder's last map of every source, which is dropped (c~ = 0) where all of z is.
"""

from collections.abc import Callable
from dataclasses import dataclass

import flax.linen as nn
import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int, Key

from soda_jax.diffusion.process import PerExample, Prediction, convert, corrupt, target_of
from soda_jax.diffusion.sampler_steps import Denoise, Sampler
from soda_jax.diffusion.samplers import path, walk
from soda_jax.diffusion.schedules import Schedule
from soda_jax.diffusion.timesteps import draw_times
from soda_jax.methods.base import BatchSpec, Scalar, Sources, normal_like, stream, to_float
from soda_jax.methods.consistency import Consistency, clean_target
from soda_jax.methods.joint_prior import JointPrior
from soda_jax.methods.masking import Condition, Guidance, check_probability, draw_mask, keep_all_but, steered
from soda_jax.methods.noise_levels import NoiseLevels
from soda_jax.methods.reading import Reading
from soda_jax.nn.attention import Context
from soda_jax.nn.modulation import check_latent_size
from soda_jax.nn.rays import View
from soda_jax.types import Batch, Image, Keys, Latent, Tree

TIME, NOISE, MASK, SOURCE, DROPOUT = range(5)  # streams of one example's key
SEVERAL = 6  # another one: of the keys of its draws (5 is joint_prior.py's)


@dataclass(frozen=True, kw_only=True)
class SODA(Reading):
    """SODA with layer modulation and section masking.

    denoiser: `(xt, t, z [b, s, d], train) -> (prediction, features)`, with a property `sections`; for
        cross-attention with an argument `context`.
    mask_section, mask_all: probabilities in [0, 1).
    source_noise: standard deviation, in units of [-1, 1] images.
    consistency, joint_prior: further terms of the loss; None: off, as in the paper.
    noise_levels: how training draws t; None: uniformly, as in the paper.
    draws: of (t, eps, m) for each target in a step of training, averaged; the encoder reads the source once for all.
    Raises ValueError when the latent cannot be cut into the sections, a probability is out of range, or draws below 1.
    """

    denoiser: nn.Module
    schedule: Schedule
    prediction: Prediction = "eps"
    loss_in: Prediction = "eps"
    mask_section: float = 0.1
    mask_all: float = 0.1
    source_noise: float = 0.1
    consistency: Consistency | None = None
    joint_prior: JointPrior | None = None
    noise_levels: NoiseLevels | None = None
    draws: int = 1

    def __post_init__(self):
        super().__post_init__()
        check_latent_size(self.encoder.latent_dim, self.sections)
        for name in ("mask_section", "mask_all"):
            check_probability(f"model.{name}", getattr(self, name))
        if not self.source_noise >= 0:
            raise ValueError(f"model.source_noise must be 0 or more, found {self.source_noise}")
        if self.draws < 1:
            raise ValueError(f"diffusion.draws must be 1 or more, found {self.draws}")

    @property
    def sections(self) -> int:
        """Number of sections of z: one per mirrored pair of layers and one for the middle, or one per block."""
        return self.denoiser.sections

    @property
    def section_dim(self) -> int:
        """Width of one section."""
        return self.encoder.latent_dim // self.sections

    def init(self, key: Key[Array, ""], spec: BatchSpec) -> Tree:
        """Fresh variables; parameters do not depend on the batch size of the spec."""
        encoder_key, denoiser_key = jax.random.split(key)
        source, target = (jnp.zeros((1, *spec[name].shape[-3:])) for name in ("source", "target"))
        rays = ((0, 0), (0, 0), (0, 0), (0, self.rays.channels if self.rays else 0))
        source = jnp.pad(source, rays) if self.source_rays else source
        (_, features), encoder = self.encoder.init_with_output(encoder_key, source, train=False)
        z, more = jnp.zeros((1, self.sections, self.section_dim)), {}
        if self.cross_attention:
            more = {"context": self.tokens(features, 1)}
        xt = jnp.pad(target, rays)
        denoiser = self.denoiser.init(denoiser_key, xt, jnp.zeros(1), z, train=False, **more)
        params = {"encoder": encoder["params"], "denoiser": denoiser["params"]}
        for term in (self.consistency, self.joint_prior):
            params |= term.params(key, self.encoder.latent_dim) if term else {}
        levels, memory = self.noise_levels.init() if self.noise_levels else ({}, {})
        stats = {"encoder": encoder["batch_stats"]} if "batch_stats" in encoder else {}
        return {"params": {**params, **levels}, "batch_stats": {**stats, **memory}}

    def loss(self, variables: Tree, batch: Batch, keys: Keys, train: bool = True) -> tuple[Scalar, dict]:
        """(4), averaged. Without `train`: no masking, source noise or dropout, and stored statistics."""
        source = to_float(batch["source"])
        if train and self.source_noise:
            source += self.source_noise * normal_like(stream(keys, SOURCE), source)  # (1)
        told, batch_stats = self.read(variables, source, batch, train)
        further = self.further_losses(variables, told.z, batch, keys) if train else {}
        if train:
            told, batch, keys = self.several(told, batch, keys)
            mask = draw_mask(stream(keys, MASK), self.sections, self.mask_section, self.mask_all)
            told = told.keeping(mask)
        metrics = {"z_square": jnp.mean(jnp.square(told.z)), **further}
        if train and self.noise_levels:
            loss, remembered, metrics["t"] = self.adaptive_loss(variables, told, batch, keys)
            batch_stats = {**batch_stats, **remembered}
        else:
            loss = jnp.mean(self.losses(variables, told, batch, keys, self.uniform_times(keys, train), train))
        return sum(further.values(), loss), {"metrics": metrics, "batch_stats": batch_stats}

    def several(self, told: Condition, batch: Batch, keys: Keys) -> tuple[Condition, Batch, Key[Array, " n"]]:
        """Each example as often as there are draws of it, with a key for each."""
        if self.draws == 1:
            return told, batch, keys
        told, batch = jax.tree.map(lambda rows: jnp.repeat(rows, self.draws, axis=0), (told, batch))
        split = jax.vmap(lambda key: jax.random.split(key, self.draws))
        return told, batch, split(stream(keys, SEVERAL)).ravel()

    def further_losses(self, variables: Tree, z: Latent, batch: Batch, keys: Keys) -> dict[str, Scalar]:
        """What is added to (4), by name."""
        found, params = {}, variables["params"]
        if self.consistency:  # the statistics that the source leaves are kept
            other, _ = self.read(variables, clean_target(batch), None, train=True)
            found["consistency"] = self.consistency(params["projector"], z, other.z)
        if self.joint_prior:
            found["joint_prior"] = self.joint_prior(params["prior"], z, keys)
        return found

    def adaptive_loss(
        self, variables: Tree, told: Condition, batch: Batch, keys: Keys
    ) -> tuple[Scalar, Tree, Scalar]:
        """(4) over times that are drawn where it varies most, what is remembered of them, and their mean."""
        drawn = self.noise_levels.draw(variables, self.schedule, stream(keys, TIME), self.draws)
        losses = self.losses(variables, told, batch, keys, drawn.t, train=True)
        term, remembered = self.noise_levels.learn(variables, drawn, losses)
        return jnp.mean(drawn.weight * losses) + term, remembered, jnp.mean(drawn.t)

    def uniform_times(self, keys: Keys, train: bool = False) -> PerExample:
        """t of each example; of the draws of one, each in a part of the times of its own."""
        return draw_times(self.schedule, stream(keys, TIME), self.draws if train else 1)

    def loss_given_latent(
        self, variables: Tree, z: Latent, batch: Batch, keys: Keys, train: bool = False
    ) -> Float[Array, " b"]:
        """(4) of each example with z taken as it is: nothing is masked here, and the sources are looked at as well."""
        context = self.condition(variables, batch["source"], batch).context if self.cross_attention else None
        return self.losses(
            variables, Condition(z, context=context), batch, keys, self.uniform_times(keys), train
        )

    def losses(
        self, variables: Tree, told: Condition, batch: Batch, keys: Keys, t: PerExample, train: bool
    ) -> Float[Array, " b"]:
        """(4) of each example at its time t; the view is that of the batch."""
        x0 = to_float(batch["target"])
        eps = normal_like(stream(keys, NOISE), x0)
        xt = corrupt(self.schedule, x0, eps, t)  # (2)
        logsnr = self.schedule.logsnr(t)
        dropout = {"dropout": jax.random.fold_in(keys[0], DROPOUT)} if train else None
        view = self.view(batch, x0.shape)
        out = self._predict(variables, xt, t, told.z, view, train, dropout, told.context)
        error = convert(out, self.prediction, self.loss_in, xt, logsnr) - target_of(
            self.loss_in, x0, eps, logsnr
        )
        return jnp.mean(jnp.square(error), axis=(1, 2, 3))

    def latent(self, variables: Tree, source: Sources, cameras: Batch | None = None) -> Latent:
        """z of clean sources in eval mode, cut into sections; see `condition`."""
        return self.condition(variables, source, cameras).z

    def condition(self, variables: Tree, source: Sources, cameras: Batch | None = None) -> Condition:
        """z of clean sources in eval mode, and with cross-attention their tokens, for `generate`.

        cameras: what `nn.rays.CAMERAS` names, `[b, ...]`; only a method with `source_rays` looks at them, and takes
        single sources without them. Raises ValueError where it needs them.
        """
        return self.read(variables, to_float(source), cameras, train=False)[0]

    def read(
        self, variables: Tree, source: Float[Array, "b *v h w c"], cameras: Batch | None, train: bool
    ) -> tuple[Condition, Tree]:
        """What sources tell (1), and the statistics after this batch (as they were when not training)."""
        z, context, stats = self.look(variables, source, cameras, train)
        return Condition(z.reshape(len(z), self.sections, self.section_dim), context=context), stats

    def view(self, cameras: Batch, shape: tuple[int, ...]) -> View | None:
        """The rays of targets of this shape [b, h, w, c]; None where the denoiser is not told the view.

        Raises ValueError where it is and `cameras` does not hold what `nn.rays.CAMERAS` names.
        """
        return self.rays(cameras, *shape[1:3]) if self.rays else None

    def denoise(
        self,
        variables: Tree,
        xt: Image,
        t: Float[Array, " b"],
        z: Latent,
        view: View | None = None,
        context: Context | None = None,
    ) -> Image:
        """The denoiser's estimate of eps, in eval mode, whatever it predicts.

        view: as `self.view` makes it. context: of `self.condition`.
        """
        out = self._predict(variables, xt, t, z, view, False, None, context)
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
        context: Context | None = None,
        on_step: Callable | None = None,
        grid: Float[Array, " n"] | None = None,
        steps: Int[Array, ""] | None = None,
    ) -> Image:
        """Images `[b, *shape]` in [-1, 1] of these latents.

        guidance: of (5), or its w alone; w = 0 calls the denoiser once a step.
        noise: the images at t = 1, or at the first time of `grid`, drawn from `key` when None. on_step: see `sample`.
        grid, steps: the times to walk along, as of `samplers.walk`; None: all of the sampler's own.
        cameras: what `nn.rays.CAMERAS` names, `[b, ...]`; only a method with `rays` looks at them.
        context: of `self.condition`; only a method with `cross_attention` looks at it.
        Raises ValueError when a section of the guidance does not exist, or cameras or context are needed and missing.
        """
        noise_key, step_key = jax.random.split(key)
        if noise is None:
            noise = jax.random.normal(noise_key, (z.shape[0], *shape))
        view = self.view(cameras or {}, noise.shape)
        denoise = self.guided_denoise(variables, z, guidance, view, context)
        schedule, grid = path(self.schedule, sampler) if grid is None else (self.schedule, grid)
        return walk(denoise, schedule, sampler, noise, step_key, grid, on_step, steps)

    def guided_denoise(
        self,
        variables: Tree,
        z: Latent,
        guidance: Guidance | float = 0.0,
        view: View | None = None,
        context: Context | None = None,
    ) -> Denoise:
        """The estimate of eps as a function of (xt, t) alone, led by z as the guidance (5) says."""
        guidance = Guidance(weight=guidance) if isinstance(guidance, float) else guidance
        told = Condition(z, view, context)
        without = told.keeping(keep_all_but(self.sections, guidance.sections)[None])

        def given(told: Condition) -> Denoise:
            return lambda xt, t: self.denoise(variables, xt, t, *told)

        return steered(given(told), given(without), guidance)

    def _predict(self, variables, xt, t, z, view, train, rngs, context=None) -> Image:
        if self.cross_attention and context is None:
            raise ValueError(
                "model.cross_attention=True: this denoiser attends to the sources and cannot draw from z alone: give "
                "it their context, of SODA.condition"
            )
        more = {"context": context} if self.cross_attention else {}
        params = {"params": variables["params"]["denoiser"]}
        seen = xt if view is None else jnp.concatenate([xt, view], -1)
        return self.denoiser.apply(params, seen, t, z, train=train, rngs=rngs, **more)[0]
