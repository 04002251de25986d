"""How times are chosen: what is drawn, what the policy learns from, and what it must not."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from soda_jax.methods.time_choice import BINS, Chosen, Policy, Uniform, judged, shares
from soda_jax.nn.policy import PolicyNet

IMAGES = jnp.asarray(np.random.default_rng(0).normal(size=(8, 16, 16, 1)).astype(np.float32))
LABELS = jnp.arange(8)[:, None] % jnp.array([[3, 2]])
FEATURES = jnp.asarray(np.random.default_rng(1).normal(size=(8, 6)).astype(np.float32))


def keys(count=8, seed=0):
    return jax.random.split(jax.random.key(seed), count)


def policy(**changes):
    return Policy(**{"actions": 40, "classes": (3, 2), "horizon": 100, **changes})


def fresh(choice):
    return jax.jit(lambda key: choice.params(key, (16, 16, 1), 6))(jax.random.key(3))


@pytest.mark.parametrize(("side", "parameters"), [(32, 146_156), (64, 135_292)])
def test_the_policies_have_the_parameters_of_the_paper(side, parameters):
    net = jax.eval_shape(
        lambda key: PolicyNet(1000).init(key, jnp.zeros((1, side, side, 3))), jax.random.key(0)
    )
    assert sum(int(np.prod(p.shape)) for p in jax.tree.leaves(net)) == parameters


def test_images_that_are_too_small_are_told():
    with pytest.raises(ValueError, match="a policy needs 16 pixels a side or more, found 12"):
        PolicyNet(10).init(jax.random.key(0), jnp.zeros((1, 12, 12, 1)))


# Fixed and uniform -------------------------------------------------------------------------------------------------


def test_a_fixed_time_is_that_of_every_image():
    chosen = Uniform(first=7, count=1).choose({}, IMAGES, keys())
    np.testing.assert_array_equal(chosen.action, np.full(8, 7))
    np.testing.assert_array_equal([chosen.log_prob, chosen.entropy], np.zeros((2, 8)))


def test_uniform_times_are_uniform_and_each_images_own():
    choice, many = Uniform(count=5), jnp.zeros((5000, 16, 16, 1))
    chosen = choice.choose({}, many, keys(5000))
    np.testing.assert_allclose(np.bincount(chosen.action) / 5000, np.full(5, 0.2), atol=0.025)
    np.testing.assert_array_equal(choice.choose({}, many[:2], keys(5000)[3:5]).action, chosen.action[3:5])
    np.testing.assert_allclose(chosen.entropy[0], np.log(5), rtol=1e-6)
    loss, logged = choice.loss({}, chosen, FEATURES, LABELS, jnp.int32(0))
    assert float(loss) == 0 and logged == {} and choice.params(keys()[0], (16, 16, 1), 6) == {}


# The policy --------------------------------------------------------------------------------------------------------


def test_the_policy_draws_from_its_softmax():
    choice = policy(actions=3)
    params = fresh(choice)
    params["policy"]["last"]["bias"] = jnp.asarray([0.0, 1.0, 2.0])
    params["policy"]["last"]["kernel"] *= 0
    many = jnp.zeros((6000, 16, 16, 1))
    chosen = choice.choose(params, many, keys(6000))
    pi = np.exp([0, 1, 2]) / np.exp([0, 1, 2]).sum()
    np.testing.assert_allclose(np.bincount(chosen.action) / 6000, pi, atol=0.02)
    np.testing.assert_allclose(chosen.log_prob, np.log(pi)[np.asarray(chosen.action)], rtol=1e-5)
    np.testing.assert_allclose(chosen.entropy, np.full(6000, -(pi * np.log(pi)).sum()), rtol=1e-5)


@pytest.mark.parametrize("baseline", [False, True])
def test_the_loss_is_the_equation(baseline):
    choice = policy(baseline=baseline, entropy=0.2)
    params = fresh(choice)
    chosen = choice.choose(params, IMAGES, keys())
    loss, logged = choice.loss(params, chosen, FEATURES, LABELS, jnp.int32(25))
    head = params["head"]
    u = np.asarray(FEATURES)
    for name in ("layer_0", "layer_1"):
        u = np.maximum(u @ np.asarray(head[name]["kernel"]) + np.asarray(head[name]["bias"]), 0)
    logits = u @ np.asarray(head["last"]["kernel"]) + np.asarray(head["last"]["bias"])
    entropies = np.zeros(8)
    for part, y in zip(np.split(logits, [3], axis=1), np.asarray(LABELS).T, strict=True):
        entropies += np.log(np.exp(part).sum(1)) - part[np.arange(8), y]
    reward = -entropies - (np.mean(-entropies) if baseline else 0)
    expected = entropies.mean() - np.mean(np.asarray(chosen.log_prob) * reward)
    expected -= 0.2 * 0.75 * np.mean(chosen.entropy)
    np.testing.assert_allclose(loss, expected, rtol=1e-4)
    np.testing.assert_allclose(logged["reward"], -entropies.mean(), rtol=1e-4)
    assert float(logged["beta"]) == pytest.approx(0.15)


def test_the_weight_of_the_entropy_falls_to_zero_and_stays():
    choice = policy(entropy=0.1)
    params = fresh(choice)
    chosen = choice.choose(params, IMAGES, keys())
    betas = [
        float(choice.loss(params, chosen, FEATURES, LABELS, jnp.int32(n))[1]["beta"])
        for n in (0, 50, 100, 300)
    ]
    np.testing.assert_allclose(betas, [0.1, 0.05, 0, 0], atol=1e-7)


def test_gradients_stop_where_they_must():
    """The cross-entropy trains the head alone; rewards and features get none; the policy learns from its own term."""
    choice = policy(entropy=0.0)
    params = fresh(choice)

    def loss(params, features, part):
        chosen = choice.choose(params, IMAGES, keys())
        return choice.loss(params, chosen, features, LABELS, jnp.int32(0))[1][part]

    def largest(tree):
        return max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(tree))

    for part, trained, still in (("head", "head", "policy"), ("policy", "policy", "head")):
        by_params, by_features = jax.grad(loss, argnums=(0, 1))(params, FEATURES, part)
        assert largest(by_params[trained]) > 1e-5
        assert largest(by_params[still]) == 0 and largest(by_features) == 0


def test_reinforce_is_the_gradient_of_the_expected_reward():
    """Summed over all actions by their probabilities, the estimate is exact: d/dtheta sum_a pi(a) r(a)."""
    rewards = jnp.asarray([-3.0, -1.0, -0.5])
    theta = jnp.asarray([0.3, -0.2, 0.1])
    exact = jax.grad(lambda t: jnp.sum(jax.nn.softmax(t) * rewards))(theta)
    pi = jax.nn.softmax(theta)
    estimate = sum(
        pi[a] * jax.grad(lambda t, a=a: jax.nn.log_softmax(t)[a] * rewards[a])(theta) for a in range(3)
    )
    np.testing.assert_allclose(estimate, exact, atol=1e-6)


def test_the_policy_finds_the_time_at_which_features_tell_the_label():
    """A bandit: features are the label at action 2, and nothing at the others. With the baseline, in 300 steps."""
    choice = Policy(actions=4, classes=(2,), entropy=0.05, horizon=200, baseline=True)
    images = jnp.asarray(np.random.default_rng(2).normal(size=(64, 16, 16, 1)).astype(np.float32))
    labels = (jnp.arange(64) % 2)[:, None]
    params = jax.jit(lambda key: choice.params(key, (16, 16, 1), 16))(jax.random.key(0))

    adam = optax.adam(1e-2)

    @jax.jit
    def step(params, state, i):
        def loss(params):
            chosen = choice.choose(
                params, images, jax.random.split(jax.random.fold_in(jax.random.key(1), i), 64)
            )
            told = jnp.tile(jax.nn.one_hot(labels[:, 0], 2), 8) * (chosen.action == 2)[:, None]
            return choice.loss(params, chosen, told, labels, i)

        (_, logged), gradient = jax.value_and_grad(loss, has_aux=True)(params)
        updates, state = adam.update(gradient, state)
        return optax.apply_updates(params, updates), state, logged

    state = adam.init(params)
    for i in range(300):
        params, state, logged = step(params, state, jnp.int32(i))
    chosen = choice.choose(params, images, keys(64, seed=9))
    assert np.mean(np.asarray(chosen.action) == 2) > 0.9
    assert float(logged["head_accuracy"]) > 0.9


# What is logged ----------------------------------------------------------------------------------------------------


def test_shares_are_of_the_tenths_of_the_times():
    found = shares("t", jnp.asarray([0, 99, 100, 999]), 1000)
    assert list(found) == [f"t/{i}" for i in range(BINS)]
    np.testing.assert_allclose(list(found.values()), [0.5, 0.25, 0, 0, 0, 0, 0, 0, 0, 0.25])
    right = shares("right", jnp.asarray([0, 5, 17]), 20, jnp.asarray([1.0, 0.0, 1.0]))
    np.testing.assert_allclose(list(right.values()), [1, 0, 0, 0, 0, 0, 0, 0, 1, 0])


def test_labels_are_judged_one_by_one():
    logits = jnp.asarray([[5.0, 0, 0, 0, 5.0], [5.0, 0, 0, 5.0, 0]])
    entropies, right = judged(logits, jnp.asarray([[0, 1], [1, 0]]), (3, 2))
    np.testing.assert_allclose(right, [1.0, 0.5])
    assert float(entropies[0]) < 0.05 < 4 < float(entropies[1])


@pytest.mark.parametrize(
    ("make", "key"),
    [
        (lambda: Uniform(count=0), r"repfusion\.t_max"),
        (lambda: Uniform(first=-1, count=1), r"repfusion\.t must"),
        (lambda: policy(entropy=-0.1), r"repfusion\.entropy must"),
        (lambda: policy(horizon=0), r"repfusion\.entropy_images"),
    ],
)
def test_what_is_out_of_range_is_told_by_key(make, key):
    with pytest.raises(ValueError, match=key):
        make()


def test_what_is_chosen_can_travel_through_jit():
    chosen = jax.jit(lambda images: policy().choose(fresh(policy()), images, keys()))(IMAGES)
    assert isinstance(chosen, Chosen) and chosen.action.shape == (8,)
