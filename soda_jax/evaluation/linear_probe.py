"""Linear heads on frozen features: a grid of them in one pass, chosen on a part of train that is held out.

(1) u = (x - mean) / sqrt(var + 1e-5 average(var))     batch normalisation without parameters, its statistics
    those of the rows fitted on. The small term is relative: the unit of the features does not matter.
(2) L(W, b) = mean_i CE(softmax(u_i W + b), y_i) + wd/2 |W|²     logistic regression with an L2 penalty: that
    of scikit-learn's LogisticRegression on u with C = 1 / (rows * wd).
(3) W, b <- Adam on minibatches of (2), rate lr (1 + cos(pi step / steps)) / 2, from W = 0 and b = 0.

The grid is learning rates x weight decays (r rows), for every label of the data set at once (l): one `vmap`
over both, in which all heads share the minibatch and so a single matrix product. Choice and report:
  1. a part of the training split is held out by group (all views of a scene go together);
  2. the grid is fitted on the rest; each label takes the row that is right most often on the held-out part
     (among equals the one with the lower held-out loss);
  3. one head a label is fitted again with the chosen values on the whole training split, and answers test.
The labels of the test split never come here: the caller compares them, once.

The rows of the grid are shared out over the devices, and so are the rows that are answered.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jaxtyping import Array, Bool, Float, Int

from soda_jax.evaluation.features import local_mesh
from soda_jax.parallel.sharding import put_rows, replicated
from soda_jax.types import Tree

PREDICT_ROWS = 4096
WHOLE = 2**28  # bytes: larger features are cut over the devices, which costs a sum over them at each step


@dataclasses.dataclass(frozen=True, kw_only=True)
class LinearProbe:
    """The grid and the length of its fit.

    Attributes:
      learning_rates, weight_decays: lr of (3) and wd of (2); every pair is one row of the grid.
      images: examples that every head sees, repeats counted.
      batch: examples a minibatch.
      holdout: part of the training groups that is held out to choose, in (0, 1).
      seed: of the split and the order of the minibatches.
    """

    learning_rates: tuple[float, ...] = (3e-3, 1e-2, 3e-2)
    weight_decays: tuple[float, ...] = (1e-5, 1e-4, 1e-3, 1e-2)
    images: int = 1_000_000
    batch: int = 512
    holdout: float = 0.1
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("learning_rates", "weight_decays"):
            if not getattr(self, name) or min(getattr(self, name)) < 0:
                raise ValueError(
                    f"config.probe.{name} needs one value or more, none negative: {getattr(self, name)}"
                )
        if not 0 < self.holdout < 1:
            raise ValueError(f"config.probe.holdout must be between 0 and 1, got {self.holdout}")
        if self.images < 1 or self.batch < 1:
            raise ValueError(f"config.probe.images must be 1 or more, got {self.images}")

    def grid(self) -> list[tuple[float, float]]:
        """(learning rate, weight decay) of each row."""
        return [(rate, decay) for rate in self.learning_rates for decay in self.weight_decays]


@dataclasses.dataclass(frozen=True, kw_only=True)
class Answer:
    """Of one label: the chosen row, how often it was right on the held-out part, its answers on test."""

    learning_rate: float
    weight_decay: float
    holdout: float
    predicted: Int[np.ndarray, " q"]


def split_by_group(
    groups: Int[np.ndarray, " b"], holdout: float, seed: int
) -> tuple[Int[np.ndarray, " f"], Int[np.ndarray, " v"]]:
    """Row numbers to fit on and to hold out; rows of one group stay together.

    Raises:
      ValueError: there are fewer than two groups.
    """
    names = np.unique(groups)
    if len(names) < 2:
        raise ValueError(
            f"holding out a part of train needs 2 images (or scenes) or more, found {len(names)}"
        )
    count = min(max(1, round(holdout * len(names))), len(names) - 1)
    held = np.isin(groups, np.random.default_rng(seed).permutation(names)[:count])
    return np.flatnonzero(~held), np.flatnonzero(held)


def minibatches(rows: Int[np.ndarray, " f"], settings: LinearProbe) -> Int[np.ndarray, "t m"]:
    """Row numbers of every minibatch: one shuffled pass over `rows` after another, cut into whole batches."""
    steps = -(-settings.images // settings.batch)
    rng = np.random.default_rng(settings.seed)
    passes = [rng.permutation(rows) for _ in range(-(-steps * settings.batch // len(rows)))]
    return np.concatenate(passes)[: steps * settings.batch].reshape(steps, settings.batch).astype(np.int32)


def normalisation(x: Float[np.ndarray, "b n"]) -> tuple[Float[np.ndarray, " n"], Float[np.ndarray, " n"]]:
    """(1): the mean and 1 / sqrt(var + ...) of each feature, summed in float64."""
    mean, variance = x.mean(axis=0, dtype=np.float64), x.var(axis=0, dtype=np.float64)
    floor = 1e-5 * variance.mean() + np.finfo(np.float32).tiny  # features that are all constant become zeros
    return mean.astype(np.float32), (1 / np.sqrt(variance + floor)).astype(np.float32)


def _logits(head: Tree, u: Float[Array, "m n"], real: Bool[Array, " k"]) -> Float[Array, "m k"]:
    """Scores; classes that this label does not have (labels share the widest k) can't win."""
    scores = jnp.dot(u, head["kernel"], precision=jax.lax.Precision.HIGHEST) + head["bias"][None]
    return jnp.where(real[None], scores, -jnp.inf)


def _loss(
    head: Tree, u: Float[Array, "m n"], y: Int[Array, " m"], real: Bool[Array, " k"], decay: Float[Array, ""]
) -> Float[Array, ""]:
    """(2)"""
    entropy = optax.softmax_cross_entropy_with_integer_labels(_logits(head, u, real), y)
    return entropy.mean() + decay / 2 * jnp.sum(head["kernel"] ** 2)


def _fit(
    x: Float[Array, "filled n"],
    norm: tuple[Float[Array, " n"], Float[Array, " n"]],
    order: Int[Array, "t m"],
    y: Int[Array, " b"],
    real: Bool[Array, " k"],
    rate: Float[Array, ""],
    decay: Float[Array, ""],
) -> Tree:
    """(3) for one label and one row of the grid: {"kernel": [n, k], "bias": [k]}."""
    mean, scale = norm
    adam = optax.scale_by_adam(b1=0.9, b2=0.99)
    head = {"kernel": jnp.zeros((x.shape[1], len(real))), "bias": jnp.zeros(len(real))}
    rates = rate * (1 + jnp.cos(jnp.pi * jnp.arange(len(order)) / len(order))) / 2

    def step(carry, batch_and_rate):
        head, state = carry
        rows, rate = batch_and_rate
        u = (x[rows] - mean[None]) * scale[None]
        update, state = adam.update(jax.grad(_loss)(head, u, y[rows], real, decay), state)
        return (jax.tree.map(lambda p, d: p - rate * d, head, update), state), None

    (head, _), _ = jax.lax.scan(step, (head, adam.init(head)), (order, rates))
    return head


@jax.jit
def fit_heads(
    x: Float[Array, "filled n"],
    norm: tuple[Float[Array, " n"], Float[Array, " n"]],
    order: Int[Array, "t m"],
    y: Int[Array, "l b"],
    real: Bool[Array, "l k"],
    rates: Float[Array, "r l"],
    decays: Float[Array, "r l"],
) -> Tree:
    """All heads in one pass: {"kernel": [r, l, n, k], "bias": [r, l, k]}; x may have more rows than y."""
    labels = jax.vmap(_fit, in_axes=(None, None, None, 0, 0, 0, 0))
    return jax.vmap(labels, in_axes=(None, None, None, None, None, 0, 0))(
        x, norm, order, y, real, rates, decays
    )


@jax.jit
def class_scores(
    heads: Tree, norm: Tree, x: Float[Array, "b n"], real: Bool[Array, "l k"]
) -> Float[Array, "r l b k"]:
    """Log-probabilities of the classes."""
    u = (x - norm[0][None]) * norm[1][None]
    labels = jax.vmap(_logits, in_axes=(0, None, 0))
    return jax.nn.log_softmax(jax.vmap(labels, in_axes=(0, None, None))(heads, u, real))


def _in_chunks(
    heads: Tree, norm: Tree, x: Float[np.ndarray, "b n"], real: Bool[np.ndarray, "l k"], mesh: Mesh
) -> Float[np.ndarray, "r l b k"]:
    """`class_scores` of many rows, in chunks of one size (the last is filled up): one program serves all."""
    rows = min(PREDICT_ROWS, len(x))
    filled = np.concatenate([x, np.zeros((-len(x) % rows, x.shape[1]), x.dtype)])
    heads, norm = jax.device_put((heads, norm), replicated(mesh))
    chunks = (put_rows({"x": part}, mesh)["x"] for part in np.split(filled, len(filled) // rows))
    parts = [np.asarray(class_scores(heads, norm, part, real))[:, :, :rows] for part in chunks]
    return np.concatenate(parts, axis=2)[:, :, : len(x)]


def choose(
    scores: Float[np.ndarray, "r l v k"], y: Int[np.ndarray, "l v"]
) -> tuple[Int[np.ndarray, " l"], Float[np.ndarray, " l"]]:
    """For each label the row of the grid that is right most often, and how often that is."""
    accuracy = (scores.argmax(-1) == y[None]).mean(-1)
    loss = -np.take_along_axis(scores, y[None, :, :, None], axis=-1)[..., 0].mean(-1)
    loss = np.where(np.isfinite(loss), loss, np.inf)
    best = np.lexsort((loss, -accuracy), axis=0)[0]
    return best, np.take_along_axis(accuracy, best[None], axis=0)[0]


class _Data:
    """Features on the devices and labels padded to one width, so that `fit` is one call."""

    def __init__(self, x, y, classes, settings, mesh):
        _check_labels(y, classes)
        self.mesh = local_mesh() if mesh is None else mesh
        self.host, self.x, self.y, self.settings = x, placed(x, self.mesh), y.astype(np.int32), settings
        self.real = np.arange(max(classes))[None] < np.asarray(classes)[:, None]

    def fit(self, rows, grid: Float[np.ndarray, "r l 2"]) -> tuple[Tree, Tree]:
        norm = normalisation(self.host[rows])
        order = minibatches(rows, self.settings)
        heads = fit_heads(self.x, norm, order, self.y, self.real, *shared_out(grid, self.mesh))
        return jax.tree.map(lambda head: np.asarray(head)[: len(grid)], heads), norm

    def scores(self, heads: Tree, norm: Tree, x) -> Float[np.ndarray, "r l b k"]:
        return _in_chunks(heads, norm, x, self.real, self.mesh)


def shared_out(
    grid: Float[np.ndarray, "r l 2"], mesh: Mesh
) -> tuple[Float[Array, "m l"], Float[Array, "m l"]]:
    """Rates and decays of the runs, equally many on each device (the last run again to fill up); one is everywhere."""
    runs = {"rates": grid[..., 0].astype(np.float32), "decays": grid[..., 1].astype(np.float32)}
    placed = put_rows(runs, mesh) if len(grid) > 1 else jax.device_put(runs, replicated(mesh))
    return placed["rates"], placed["decays"]


def placed(x: Float[np.ndarray, "b n"], mesh: Mesh, most: int = WHOLE) -> Float[Array, "filled n"]:
    """Features on the devices: whole on each if they have at most `most` bytes, else rows over them, filled up."""
    return jax.device_put(x, replicated(mesh)) if x.nbytes <= most else put_rows({"x": x}, mesh)["x"]


def probe(
    x: Float[np.ndarray, "b n"],
    y: Int[np.ndarray, "l b"],
    classes: tuple[int, ...],
    groups: Int[np.ndarray, " b"],
    test: Float[np.ndarray, "q n"],
    settings: LinearProbe,
    clean: Bool[np.ndarray, " b"] | None = None,
    mesh: Mesh | None = None,
) -> list[Answer]:
    """Choose on a held-out part of (x, y), fit again on all of it, and answer `test`; one Answer a label.

    Args:
      x, test: features of the training and the test split.
      y: class numbers of the training split, one row a label; `classes` has the number of classes of each.
      groups: what must not be parted between fitting and choosing (the scene's number, or the image's own).
      settings: the grid.
      clean: rows that may judge the choice (default: all); augmented copies are fitted on but never judge.
      mesh: default: all devices of this process.

    Raises:
      ValueError: fewer than two groups, or a class number outside 0..classes-1.
    """
    data = _Data(x, y, classes, settings, mesh)
    chosen, accuracy = _chosen(data, groups, clean)
    predicted = data.scores(*data.fit(np.arange(len(x)), chosen), test)[0].argmax(-1)
    return [
        Answer(learning_rate=float(rate), weight_decay=float(decay), holdout=float(right), predicted=answers)
        for (rate, decay), right, answers in zip(chosen[0], accuracy, predicted, strict=True)
    ]


def held_out_accuracy(
    x: Float[np.ndarray, "b n"],
    y: Int[np.ndarray, "l b"],
    classes: tuple[int, ...],
    groups: Int[np.ndarray, " b"],
    settings: LinearProbe,
) -> Float[np.ndarray, " l"]:
    """How often the best head of each label is right on the held-out part: `probe` without the test."""
    return _chosen(_Data(x, y, classes, settings, None), groups, None)[1]


def _chosen(
    data: _Data, groups: Int[np.ndarray, " b"], clean: Bool[np.ndarray, " b"] | None
) -> tuple[Float[np.ndarray, "1 l 2"], Float[np.ndarray, " l"]]:
    """The chosen (learning rate, weight decay) of each label, and its accuracy on the held-out part."""
    fitted_on, held = split_by_group(groups, data.settings.holdout, data.settings.seed)
    held = held if clean is None else held[clean[held]]
    grid = np.repeat(np.asarray(data.settings.grid())[:, None], len(data.y), axis=1)
    scores = data.scores(*data.fit(fitted_on, grid), data.host[held])
    best, accuracy = choose(scores, data.y[:, held])
    return np.take_along_axis(grid, best[None, :, None], axis=0), accuracy


def _check_labels(y: Int[np.ndarray, "l b"], classes: tuple[int, ...]) -> None:
    for number, (row, count) in enumerate(zip(y, classes, strict=True)):
        if row.min() < 0 or row.max() >= count:
            raise ValueError(
                f"label {number} must be in 0..{count - 1}, found {row.min()}..{row.max()}: the data set has "
                "unlabelled examples or its features do not match its records; prepare it again"
            )
