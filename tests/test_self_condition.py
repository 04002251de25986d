"""Self-conditioning of DDAE's nets: what which block is told, its start, its cost, its gradient, keys and refusals."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from experiments import build, methods, teachers
from experiments.configs import repfusion_fashion_mnist
from experiments.runs import write_config
from soda_jax.export import encoders
from soda_jax.methods.base import to_float
from soda_jax.nn import ddpm_blocks, dit
from soda_jax.nn.ddpm_unet import MIDDLE, DDPMUNet
from soda_jax.nn.self_condition import SelfCondition
from soda_jax.training.flops import forward_flops
from tests import tiny
from tests.arrays import normal, random_variables
from tests.test_build import config

UNET = DDPMUNet(**{**tiny.NET, "dropout": 0.0, "resample": "block"})
DIT = tiny.dit(dropout=0.0, depth=3)
X, T = normal(2, 8, 8, 1), jnp.array([0.1, 0.9])
DOWN = {f"down_0_{name}" for name in ("block0", "resample")} | {"down_1_block0"}
# net, the map that is pooled, the blocks before it, the maps that it does not change
CASES = {
    "down": (UNET, "in_2", {"down_0_block0"}, {"in_1", "in_2"}),
    "middle": (
        UNET,
        "middle",
        DOWN | {"middle_block0", "middle_block1"},
        {*(f"in_{k}" for k in (1, 2, 3, 4)), "middle", MIDDLE},
    ),
    "dit": (DIT, "block_1", {"block_1"}, {"block_0", "block_1"}),
}


@functools.partial(jax.jit, static_argnums=0)
def watched(net, variables):
    """The answer to X and T, the maps, and what each block is told of time, by its name."""
    told = {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, ddpm_blocks.Block | dit.Block) and context.method_name == "__call__":
            told[context.module.name] = args[1]
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        return *net.apply(variables, X, T), told


@functools.cache
def variables_of(net):
    return random_variables(net, X, T)


def with_own(net, tap, scale=1.0):
    """(The net with self-conditioning, its variables: those without, and its own, times `scale`)."""
    on = net.clone(self_condition=tap)
    own = jax.tree.map(lambda x: scale * x, variables_of(on)["params"]["self_conditioning"])
    return on, {"params": {**variables_of(net)["params"], "self_conditioning": own}}


@pytest.mark.parametrize("case", CASES)
def test_blocks_behind_the_tap_are_told_its_mean_and_no_others(case):
    """(1), by numpy."""
    net, tap, before, unchanged = CASES[case]
    _, plain, e = watched(net, variables_of(net))
    on, variables = with_own(net, tap)
    _, maps, told = watched(on, variables)
    own = jax.tree.map(np.asarray, variables["params"]["self_conditioning"])
    assert told.keys() == e.keys() > before
    for name, found in told.items():
        was = np.asarray(e[name])
        scale = 1 + was / (1 + np.exp(-was)) @ own["scale"]["kernel"]
        more = scale * (np.asarray(plain[tap]).mean((1, 2)) @ own["project"]["kernel"])
        np.testing.assert_allclose(found, was if name in before else was + more, rtol=1e-4, atol=1e-5)
        assert np.abs(more).max((1,)).min() > 0.1
    for name, h in maps.items():
        apart = np.abs(np.asarray(h) - np.asarray(plain[name])).max((1, 2, 3))
        assert apart.max() < 1e-5 if name in unchanged else apart.min() > 1e-3, name


@pytest.mark.parametrize("case", CASES)
def test_with_zeros_it_answers_as_the_net_without(case):
    net, tap, *_ = CASES[case]
    expected = watched(net, variables_of(net))[0]
    np.testing.assert_array_equal(watched(*with_own(net, tap, 0.0))[0], expected)


def test_it_starts_at_zero_and_all_else_as_it_was():
    off, on = (
        jax.jit(lambda key, net=net: net.init(key, X, T))(jax.random.key(3))["params"]
        for net in (DIT, DIT.clone(self_condition="block_1"))
    )
    assert not any(np.any(leaf) for leaf in jax.tree.leaves(on.pop("self_conditioning")))
    jax.tree.map(np.testing.assert_array_equal, on, off)


@pytest.mark.parametrize(
    ("net", "tap", "own"),
    [
        (DDPMUNet(), "middle", 256 * 512 + 512),
        (dit.DiT(**dit.SIZES["S"]._asdict()), "block_6", 384 * 384 + 384),
    ],
    ids=["ddpm", "dit"],
)
def test_it_costs_less_than_a_hundredth(net, tap, own):
    """In parameters and in work, at the sizes of the configs."""
    x, t = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32), jax.ShapeDtypeStruct((1,), jnp.float32)
    counts, works = [], []
    for one in (net, net.clone(self_condition=tap)):
        variables = jax.eval_shape(lambda x, t, one=one: one.init(jax.random.key(0), x, t), x, t)
        counts.append(sum(leaf.size for leaf in jax.tree.leaves(variables)))
        works.append(forward_flops(one.apply, variables, x, t))
    assert counts[1] - counts[0] == own < 0.005 * counts[0]
    assert works[1] - works[0] == 2 * own < 0.0005 * works[0]


def test_the_gradient_goes_through_the_map_or_is_stopped_there():
    """What is told is the same; at the start, what reads the map learns already."""
    e, h = normal(2, 4), normal(2, 3, 3, 5, seed=1)
    variables = random_variables(SelfCondition(), e, h)
    found, gradients = [], []
    for layer in (SelfCondition(), SelfCondition(gradient=False)):
        found.append(layer.apply(variables, e, h))
        gradients.append(jax.grad(lambda h, layer=layer: layer.apply(variables, e, h).sum())(h))
    np.testing.assert_array_equal(*found)
    assert np.abs(gradients[0]).min() > 0 and not np.any(gradients[1])
    start = SelfCondition(gradient=False).init(jax.random.key(0), e, h)
    learned = jax.grad(lambda v: jnp.square(SelfCondition(gradient=False).apply(v, e, h)).sum())(start)
    assert np.abs(learned["params"]["project"]["kernel"]).min() > 0


def test_it_learns():
    """Forty steps on one batch, after which all of (1) has left its start."""
    method = tiny.ddae(denoiser=tiny.dit(dropout=0.0, self_condition="block_1"), tap="block_1")
    state, step = tiny.state(method), tiny.step(method)
    losses = []
    for _ in range(40):
        state, metrics = step(state, tiny.batch())
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.8 * np.mean(losses[:5])
    begun = tiny.variables(method)["params"]["denoiser"]["self_conditioning"]
    own = state.params["denoiser"]["self_conditioning"]
    assert all(jax.tree.leaves(jax.tree.map(lambda a, b: np.abs(a - b).min() > 1e-4, own, begun)))


def encoder_of(fields, tap):
    """The net up to a tap, as a bundle describes it."""
    method = tiny.ddae(**fields, tap=tap, draws=0)
    return encoders.restored(encoders.describe(method.tapped()))


@pytest.mark.parametrize(
    ("fields", "after", "before"),
    [
        ({"net": {"self_condition": "in_2"}}, "out_2", "in_2"),
        ({"denoiser": DIT.clone(self_condition="block_1")}, "block_2", "block_1"),
    ],
    ids=["unet", "dit"],
)
def test_an_encoder_has_it_where_its_tap_is_behind_it(fields, after, before):
    """And not where it is that map itself; fine-tuning counts it among the layers."""
    for tap, has in ((after, True), (before, False)):
        init = encoder_of(fields, tap).init
        params = jax.eval_shape(lambda init=init: init(jax.random.key(0), X))["params"]
        assert ("self_conditioning" in params) == has
    layers = tiny.supervised(encoder_of(fields, after)).layers(tiny.spec(tiny.batch()))
    own = layers.index("encoder/self_conditioning")
    assert 0 < own < len(layers) - 1 and layers[0] == "encoder/time"


def test_an_encoder_gives_what_the_net_gives():
    """Behind the map that is pooled, of clean images."""
    method = tiny.ddae(denoiser=DIT.clone(self_condition="block_1"), tap="block_2", draws=0)
    images, params = tiny.batch()["target"], random_variables(method.denoiser, X, T)["params"]
    names = ("time", "embed", "block_1", "self_conditioning", "block_2")
    z = jax.jit(method.tapped().apply)({"params": {name: params[name] for name in names}}, to_float(images))
    expected = jax.jit(method.encode)({"params": {"denoiser": params}}, images)["z"]
    np.testing.assert_allclose(z[0], expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"net": {"self_condition": "out_4"}}, "expected one of in_1, .*, out_3, or '', found 'out_4'"),
        ({"net": {"self_condition": "block_1"}}, "expected one of in_1, .*, out_3, or '', found 'block_1'"),
        ({"denoiser": tiny.dit(self_condition="block_2")}, "expected one of block_0, block_1, or '', found"),
        ({"denoiser": tiny.dit(self_condition="middle")}, "expected one of block_0, block_1, or '', found"),
    ],
)
def test_a_map_that_there_is_not_or_that_is_the_last_is_refused(fields, words):
    method = tiny.ddae(**{"tap": "block_1", **fields})
    with pytest.raises(ValueError, match=rf"ddae\.self_condition: {words}") as error:
        jax.eval_shape(lambda key: method.init(key, tiny.spec(tiny.batch())), jax.random.key(0))
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("keys", [{}, {"model.denoiser": "dit", "model.patch": 2, "ddae.tap": "block_6"}])
def test_the_keys_reach_the_net_and_a_student_s_teacher(keys, tmp_path):
    tap = "block_5" if keys else "middle"
    changes = {"method": "ddae", "diffusion.schedule": "linear", "data.channels": 1, **keys}
    c = config({**changes, "ddae.self_condition": tap, "ddae.self_gradient": False})
    net = methods.method(c, build.batch_spec(c)).denoiser
    assert (net.self_condition, net.self_gradient) == (tap, False)
    write_config(tmp_path, c, {}, {})
    student = repfusion_fashion_mnist.get_config(str(tmp_path))
    assert student.teacher.self_condition == teachers.teacher_keys(c)["self_condition"] == tap
    assert methods.method(student, build.batch_spec(student)).teacher.denoiser.self_condition == tap
    usual = config(changes)
    assert methods.method(usual, build.batch_spec(usual)).denoiser == net.clone(
        self_condition="", self_gradient=True
    )
