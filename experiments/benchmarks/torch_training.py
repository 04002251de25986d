"""The PyTorch side of `train_speed`: the twin of SODA that the tests hold ours against, trained eagerly.

Draws, clipping, AdamW and EMA are those of `soda_jax.training`, written as PyTorch users write them.
"""

from collections.abc import Callable

import numpy as np
import torch
from ml_collections import ConfigDict

from experiments import build, methods
from soda_jax.types import Tree
from tests import torch_twins as twins

TorchBatch = dict[str, torch.Tensor]


def training_step(
    config: ConfigDict, batch: dict[str, np.ndarray], weights: Tree, *, threads: int, channels_last: bool
) -> Callable[[], float]:
    """A function that makes one step on this batch and returns its loss; it starts from our `weights`."""
    torch.set_num_threads(threads)
    torch.manual_seed(config.seed)
    images = {
        name: torch.from_numpy(batch[name].transpose(0, 3, 1, 2).copy()) for name in ("source", "target")
    }
    memory = torch.channels_last if channels_last else torch.contiguous_format
    twin = twin_of(config, weights).to(memory_format=memory).train()
    images = {name: image.contiguous(memory_format=memory) for name, image in images.items()}
    return stepper(config, twin, images)


def twin_of(config: ConfigDict, weights: Tree) -> twins.SODA:
    """The twin of the config's method, with our parameters and statistics."""
    method = methods.method(config, build.batch_spec(config))
    c, channels = config.model, config.data.channels
    encoder = twins.ResNet18(channels, c.latent_dim, c.encoder_width, c.stem == "small")
    denoiser = twins.UNet(channels, method.section_dim, method.denoiser)
    return twins.load(twins.SODA(encoder, denoiser, method.sections), *weights.values())


def stepper(config: ConfigDict, twin: twins.SODA, images: TorchBatch) -> Callable[[], float]:
    """Forward, backward, clip, AdamW, EMA."""
    parameters = list(twin.parameters())
    average = [parameter.detach().clone() for parameter in parameters]
    optimizer, count = adamw(config, twin), 0

    def step() -> float:
        nonlocal count
        loss = twin(*inputs(config, images, twin.sections))
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(parameters, config.optimizer.clip)
        optimizer.step()
        decay = min(config.ema.decay, (1 + count) / (10 + count))
        torch._foreach_lerp_(average, [parameter.detach() for parameter in parameters], 1 - decay)
        count += 1
        return loss.item()

    return step


def inputs(config: ConfigDict, images: TorchBatch, sections: int) -> tuple[torch.Tensor, ...]:
    """What the twin's loss takes: source, target, t, eps, source noise, which sections are kept."""
    c, target = config.model, as_float(images["target"])
    source, batch = as_float(images["source"]), len(images["source"])
    t = torch.randint(1, config.diffusion.steps + 1, (batch,)) / config.diffusion.steps
    keep = (torch.rand(batch, sections) >= c.mask_section) & (torch.rand(batch, 1) >= c.mask_all)
    noise = c.source_noise * torch.randn_like(source)
    return source, target, t, torch.randn_like(target), noise, keep.float()


def as_float(images: torch.Tensor) -> torch.Tensor:
    """uint8 to [-1, 1]."""
    return images.float() / 127.5 - 1


def adamw(config: ConfigDict, twin: twins.SODA) -> torch.optim.Optimizer:
    """Fused AdamW: decay for kernels alone, a faster encoder."""
    c, groups = config.optimizer, []
    for network, rate in (
        (twin.encoder, c.encoder_ratio * c.learning_rate),
        (twin.denoiser, c.learning_rate),
    ):
        for decay, wide in ((c.weight_decay, True), (0.0, False)):
            chosen = [p for p in network.parameters() if (p.ndim > 1) == wide]
            groups.append({"params": chosen, "lr": rate, "weight_decay": decay})
    return torch.optim.AdamW(groups, betas=(c.b1, c.b2), fused=True)
