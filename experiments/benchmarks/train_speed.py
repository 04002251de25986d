"""Training images/s of our jitted step against its PyTorch twin, by turns in one process.

    python -m experiments.benchmarks.train_speed [--channels=128] [--rounds=7] [--steps=2]

The same SODA (ResNet-18 and U-Net with layer modulation), sizes, first weights and batch in memory. Both
sides draw times, noise and masks, go forward and backward, clip, and update AdamW and the EMA, in float32,
without dropout and warm-up. Each has the same cores and as many threads. Ours is the step of
`experiments.train`; theirs is eager PyTorch with its fused AdamW, in the memory format that its documentation
advises for convolutions, channels-last, unless `--nochannels_last` is given.
"""

import os
from collections.abc import Callable

import jax
import numpy as np
from absl import app, flags, logging
from ml_collections import ConfigDict

from experiments import build, methods, xla_flags
from experiments.benchmarks.alternating import Turn, hardware, measure, table, use_cores, versions
from experiments.configs import default
from soda_jax.training.state import TrainState, create, variables
from soda_jax.training.step import make_step
from soda_jax.types import Tree

OURS, THEIRS = "soda_jax", "pytorch"
NumpyBatch = dict[str, np.ndarray]
Step = Callable[[], float]  # makes one step, returns its loss

_CHANNELS = flags.DEFINE_integer("channels", 32, "Channels of the U-Net's first level.", lower_bound=1)
_WIDTH = flags.DEFINE_integer("encoder_width", 64, "Channels of the ResNet-18's first stage.", lower_bound=1)
_BATCH = flags.DEFINE_integer("batch", 32, "Images a step.", lower_bound=1)
_SIZE = flags.DEFINE_integer("size", 32, "Side of the images in pixels.", lower_bound=8)
_STEPS = flags.DEFINE_integer("steps", 2, "Steps a turn.", lower_bound=1)
_ROUNDS = flags.DEFINE_integer("rounds", 7, "Turns of each that count.", lower_bound=1)
_THREADS = flags.DEFINE_integer("threads", 2, "Cores, and threads of each side.", lower_bound=1)
_ONLY = flags.DEFINE_enum(
    "only", "", ["", OURS, THEIRS], "Time one side alone, to see that turns do no harm."
)
_CHANNELS_LAST = flags.DEFINE_boolean("channels_last", True, "Memory format of the PyTorch side.")


def main(argv: list[str]) -> None:
    """Prints the hardware, the sizes and the table."""
    if len(argv) > 1:
        raise app.UsageError(f"unexpected arguments: {' '.join(argv[1:])}")
    cores = use_cores(_THREADS.value)
    logging.set_verbosity(logging.WARNING)
    xla_flags.set_up()
    config = config_of_flags()
    batch = random_batch(config)
    losses: dict[str, list[float]] = {OURS: [], THEIRS: []}
    state = first_state(config)
    steps = their_step(
        config, batch, jax.device_get(variables(state))
    )  # before ours, which consumes the state
    steps = {OURS: our_step(config, batch, state)} | steps
    steps = {name: step for name, step in steps.items() if _ONLY.value in ("", name)}
    turns = {name: turn(step, config.train.batch, losses[name]) for name, step in steps.items()}
    print(hardware(cores))
    print(versions("jax", "flax", "torch"))
    print(f"XLA_FLAGS={os.environ['XLA_FLAGS']}; PyTorch channels_last={_CHANNELS_LAST.value}")
    print(description(config))
    print(table(measure(turns, _ROUNDS.value), OURS, THEIRS))
    print("; ".join(losses_in_words(name, losses[name]) for name in steps))


def config_of_flags() -> ConfigDict:
    """The default config with the sizes of the flags."""
    config = default.get_config()
    config.data.image_size = config.data.source_size = _SIZE.value
    config.model.channels = _CHANNELS.value
    config.model.encoder_width = _WIDTH.value
    config.train.batch = _BATCH.value
    config.model.dropout = 0.0  # the twin has none
    config.optimizer.warmup_images = 0
    return config


def description(config: ConfigDict) -> str:
    """The sizes in one line."""
    c, side = config.model, config.data.image_size
    networks = f"{c.encoder} width {c.encoder_width}, U-Net {c.channels} x {tuple(c.multipliers)}"
    return f"{networks}, batch {config.train.batch} of {side} x {side} x {config.data.channels}, {c.dtype}"


def random_batch(config: ConfigDict) -> NumpyBatch:
    """One uint8 batch, used by both sides at every step."""
    rng, spec = np.random.default_rng(0), build.batch_spec(config)
    return {name: rng.integers(0, 255, like.shape).astype(like.dtype) for name, like in spec.items()}


def first_state(config: ConfigDict) -> TrainState:
    """Before any training."""
    spec = build.batch_spec(config)
    method, optimizer = methods.method(config, spec), build.optimizer(config)
    return jax.jit(lambda key: create(method, optimizer, key, spec))(build.init_key(config))


def our_step(config: ConfigDict, batch: NumpyBatch, state: TrainState) -> Step:
    """The compiled step on one device, with its state donated, as in training."""
    method, optimizer = methods.method(config, build.batch_spec(config)), build.optimizer(config)
    step = jax.jit(make_step(method, optimizer, build.ema(config), 1, config.seed), donate_argnums=0)
    placed = jax.device_put(batch)

    def take() -> float:
        nonlocal state
        state, metrics = step(state, placed)
        return float(metrics["loss"])

    return take


def their_step(config: ConfigDict, batch: NumpyBatch, weights: Tree) -> dict[str, Step]:
    """PyTorch's; nothing, and a word, where it is not there."""
    try:
        from experiments.benchmarks import torch_training
    except ImportError as error:
        print(f"no comparison: {error}; pip install torch==2.13.0")
        return {}
    options = {"threads": _THREADS.value, "channels_last": _CHANNELS_LAST.value}
    return {THEIRS: torch_training.training_step(config, batch, weights, **options)}


def turn(step: Step, batch: int, losses: list[float]) -> Turn:
    """As many steps as the flag says; their losses are kept."""

    def take() -> int:
        losses.extend(step() for _ in range(_STEPS.value))
        return _STEPS.value * batch

    return take


def losses_in_words(name: str, losses: list[float]) -> str:
    """The first and the last, for both sides must learn: from 1 downwards."""
    return f"loss of {name}: {losses[0]:.3f} at first, {losses[-1]:.3f} after {len(losses)} steps"


if __name__ == "__main__":
    app.run(main)
