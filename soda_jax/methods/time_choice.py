"""At which of its T times a teacher is asked for the features of an image (RepFusion, arXiv 2308.10916).

    fixed     a, for every image                                                                            (1)
    uniform   a ~ U{0 .. a_max - 1}                                                                         (2)
    rl        a ~ pi(a | x) = softmax(CNN(x));  a head g reads the teacher's pooled features u of a,          (3)
              r = -CE(g(u), y),  loss = CE - log pi(a | x) r* - beta H(pi(. | x)),  averaged                 (4)

r* gets no gradient, and neither do u: CE trains g alone, and the second term pi alone (REINFORCE). r* is r, or with
`baseline` r less its mean over the batch, which changes no expectation and much of the variance: rewards are never
positive, so that without it every action that is tried is made less likely. beta falls to 0 in a line.
"""

from dataclasses import dataclass
from typing import NamedTuple, Protocol, runtime_checkable

import flax.linen as nn
import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float, Int, Key

from soda_jax.methods.base import Scalar
from soda_jax.nn.policy import PolicyNet
from soda_jax.types import Image, Keys, Tree

Actions = Int[Array, " b"]
BINS = 10  # of the times, in the log


class Chosen(NamedTuple):
    """What was chosen for each image."""

    action: Actions  # 0 .. T - 1
    log_prob: Float[Array, " b"]  # of it
    entropy: Float[Array, " b"]  # of what it was drawn from


@runtime_checkable
class TimeChoice(Protocol):
    """(1), (2) or (3)."""

    def params(self, key: Key[Array, ""], image: tuple[int, ...], features: int) -> Tree:
        """Fresh parameters for images [h, w, c], and that many features of the teacher."""
        ...

    def choose(self, params: Tree, images: Image, keys: Keys) -> Chosen:
        """An action of each image."""
        ...

    def loss(
        self,
        params: Tree,
        chosen: Chosen,
        features: Float[Array, "b n"],
        labels: Int[Array, "b l"],
        updates: Array,
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """What is added to the loss of the student after so many updates, and what is to be logged."""
        ...


@dataclass(frozen=True, kw_only=True)
class Uniform:
    """(2), and with one action (1). ValueError for no action.

    first, count: the actions are first .. first + count - 1.
    """

    first: int = 0
    count: int

    def __post_init__(self):
        if self.first < 0 or self.count < 1:
            raise ValueError(
                f"repfusion.t must be 0 or more and repfusion.t_max 1 or more, found {self.first}, {self.count}"
            )

    def params(self, key: Key[Array, ""], image: tuple[int, ...], features: int) -> Tree:
        """None."""
        del key, image, features
        return {}

    def choose(self, params: Tree, images: Image, keys: Keys) -> Chosen:
        """Each from its own key."""
        del params
        action = self.first + jax.vmap(lambda key: jax.random.randint(key, (), 0, self.count))(keys)
        surprise = jnp.full(len(images), jnp.log(float(self.count)))
        return Chosen(action, -surprise, surprise)

    def loss(
        self,
        params: Tree,
        chosen: Chosen,
        features: Float[Array, "b n"],
        labels: Int[Array, "b l"],
        updates: Array,
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """Nothing."""
        del params, chosen, features, labels, updates
        return jnp.zeros(()), {}


class Head(nn.Module):
    """g of (3): two hidden layers as wide as the features, then the classes of every label, one after the other."""

    classes: tuple[int, ...]

    @nn.compact
    def __call__(self, u: Float[Array, "b n"]) -> Float[Array, "b _"]:
        for number in range(2):
            u = nn.relu(nn.Dense(u.shape[-1], name=f"layer_{number}")(u))
        return nn.Dense(sum(self.classes), name="last")(u)


@dataclass(frozen=True, kw_only=True)
class Policy:
    """(3) and (4).

    actions: T. classes: of each label. entropy: beta at first; horizon: updates until it is 0.
    baseline: whether r* is held against the mean of the batch. ValueError for what is out of range.
    """

    actions: int
    classes: tuple[int, ...]
    entropy: float = 0.1
    horizon: int
    baseline: bool = False

    def __post_init__(self):
        if not self.entropy >= 0 or self.horizon < 1:
            raise ValueError(
                "repfusion.entropy must be 0 or more and repfusion.entropy_images 1 or more, found "
                f"{self.entropy}, {self.horizon} updates"
            )

    def params(self, key: Key[Array, ""], image: tuple[int, ...], features: int) -> Tree:
        """{"policy": of the CNN, "head": of g}"""
        keys = jax.random.split(key)
        policy = PolicyNet(self.actions).init(keys[0], jnp.zeros((1, *image)))
        head = Head(self.classes).init(keys[1], jnp.zeros((1, features)))
        return {"policy": policy["params"], "head": head["params"]}

    def choose(self, params: Tree, images: Image, keys: Keys) -> Chosen:
        """(3), each from its own key."""
        log_pi = jax.nn.log_softmax(PolicyNet(self.actions).apply({"params": params["policy"]}, images))
        action = jax.vmap(jax.random.categorical)(keys, log_pi)
        log_prob = jnp.take_along_axis(log_pi, action[:, None], axis=1)[:, 0]
        return Chosen(action, log_prob, -jnp.sum(jnp.exp(log_pi) * log_pi, -1))

    def loss(
        self,
        params: Tree,
        chosen: Chosen,
        features: Float[Array, "b n"],
        labels: Int[Array, "b l"],
        updates: Array,
    ) -> tuple[Scalar, dict[str, Scalar]]:
        """(4)"""
        logits = Head(self.classes).apply({"params": params["head"]}, jax.lax.stop_gradient(features))
        entropies, right = judged(logits, labels, self.classes)
        reward = -jax.lax.stop_gradient(entropies)
        wanted = reward - jnp.mean(reward) if self.baseline else reward
        beta = self.entropy * jnp.maximum(1.0 - updates / self.horizon, 0.0)
        terms = {
            "head": jnp.mean(entropies),
            "policy": -jnp.mean(chosen.log_prob * wanted),
            "entropy_term": -beta * jnp.mean(chosen.entropy),
        }
        logged = {"reward": jnp.mean(reward), "head_accuracy": jnp.mean(right), "beta": beta}
        logged |= shares("right", chosen.action, self.actions, right)
        return sum(terms.values()), {**terms, **logged}


def judged(
    logits: Float[Array, "b _"], labels: Int[Array, "b l"], classes: tuple[int, ...]
) -> tuple[Float[Array, " b"], Float[Array, " b"]]:
    """Of each example the sum of the cross-entropies of its labels, and the share of them that is right."""
    ends = [sum(classes[: i + 1]) for i in range(len(classes) - 1)]
    parts = jnp.split(logits, ends, axis=-1)
    entropies = [
        optax.softmax_cross_entropy_with_integer_labels(one, labels[:, i]) for i, one in enumerate(parts)
    ]
    right = [jnp.argmax(one, -1) == labels[:, i] for i, one in enumerate(parts)]
    return sum(entropies), jnp.mean(jnp.stack(right).astype(jnp.float32), axis=0)


def shares(
    name: str, action: Actions, actions: int, weight: Float[Array, " b"] | None = None
) -> dict[str, Scalar]:
    """Which share of the batch chose a time in each tenth of them, or the mean of a weight there, by `name/0`, ..."""
    place = jnp.clip(action * BINS // actions, 0, BINS - 1)
    member = (place[:, None] == jnp.arange(BINS)[None]).astype(jnp.float32)
    if weight is None:
        found = jnp.mean(member, axis=0)
    else:
        found = jnp.sum(member * weight[:, None], axis=0) / jnp.maximum(jnp.sum(member, axis=0), 1.0)
    return {f"{name}/{i}": found[i] for i in range(BINS)}
