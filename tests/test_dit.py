"""DiT: published sizes and costs, named maps, its start, sections of z, what it is told, precision, remat, errors.

Outputs and gradients against a PyTorch twin: test_dit_torch.py.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from soda_jax.nn.dit import SIZES, Block, DiT, TappedDiT, normalised, places
from soda_jax.training.flops import forward_flops
from tests.arrays import normal, random_variables

NET = DiT(width=8, depth=3, heads=2, patch=2, dropout=0.5)
X, T, Z = normal(2, 4, 6, 3), jnp.array([0.001, 0.9]), normal(2, 3, 5, seed=1)
LATENT = jax.ShapeDtypeStruct((1, 32, 32, 4), jnp.float32)
APPLY = jax.jit(NET.apply, static_argnames="train")


@pytest.fixture(scope="module")
def variables():
    return random_variables(NET, X, T, Z)


def abstract(net, x, *inputs, **more):
    """Shapes of ((prediction, features), variables) without computing."""
    t = jax.ShapeDtypeStruct(x.shape[:1], jnp.float32)
    return jax.eval_shape(
        lambda *given: net.init_with_output(jax.random.key(0), *given, **more), x, t, *inputs
    )


def public(size, patch=2):
    """Of latents of 32 x 32 x 4, with 1000 classes and sigma."""
    return DiT(**SIZES[size]._asdict(), patch=patch, out_channels=4, class_count=1000, learn_sigma=True)


def by_hand(d, depth, patch):
    """Weights and biases: patches, time, 1001 classes, each block, the last layer."""
    block = (4 * d * d + 4 * d) + (8 * d * d + 5 * d) + 6 * (d * d + d)
    ends = (4 * patch**2 + 1) * d + (256 + 1) * d + (d * d + d) + 1001 * d
    return ends + depth * block + 2 * (d * d + d) + (d + 1) * 8 * patch**2


@pytest.mark.parametrize(
    ("size", "millions", "count"),
    [
        ("S", 33, 32_865_056),
        ("B", 130, 130_315_808),
        ("L", 458, 457_840_672),
        (
            "XL",
            675,
            675_129_632 - 256 * 1152,
        ),  # published with the places of 256 patches, which are no parameters
    ],
)
def test_parameters_are_those_of_the_public_models(size, millions, count):
    """The paper's millions, at patch 2; exactly by hand, at each patch."""
    for patch in (2, 4, 8):
        _, variables = abstract(public(size, patch), LATENT)
        found = sum(x.size for x in jax.tree.leaves(variables))
        assert found == by_hand(SIZES[size].width, SIZES[size].depth, patch)
        assert patch > 2 or (found == count and round(found / 1e6) == millions)


@pytest.mark.parametrize(
    ("size", "patch", "gigaflops"),
    [("S", 2, 6.06), ("S", 4, 1.41), ("S", 8, 0.36), ("B", 2, 23.01), ("L", 2, 80.71), ("XL", 2, 118.64)],
)
def test_work_is_that_of_the_paper(size, patch, gigaflops):
    """Its Gflops are multiplications, ours twice as many."""
    net = public(size, patch)
    _, variables = abstract(net, LATENT)
    found = forward_flops(net.apply, variables, LATENT, jax.ShapeDtypeStruct((1,), jnp.float32))
    assert found / 2e9 == pytest.approx(gigaflops, rel=2e-4, abs=0.006)


@pytest.mark.parametrize(("patch", "sides"), [(1, (3, 5)), (2, (4, 6)), (8, (16, 8))])
def test_maps_are_named_and_images_of_any_size_and_channels_come_back(patch, sides):
    x = jax.ShapeDtypeStruct((2, *sides, 7), jnp.float32)
    net = NET.clone(patch=patch, out_channels=5, learn_sigma=True)
    (out, features), _ = abstract(net, x)
    assert out.shape == features["sigma"].shape == (2, *sides, 5)
    assert list(features) == [*(f"block_{k}" for k in range(4)), "sigma"]
    assert {features[f"block_{k}"].shape for k in range(4)} == {(2, *(s // patch for s in sides), 8)}


def test_places_are_sines_and_cosines_of_the_column_and_of_the_row():
    found = np.asarray(places(3, 4, 8)).reshape(3, 4, 8)
    for row, column in ((0, 0), (1, 3), (2, 1)):
        waves = [f(u * w) for u in (column, row) for f in (np.sin, np.cos) for w in (1.0, 0.01)]
        np.testing.assert_allclose(found[row, column], waves, atol=1e-6)


def test_tokens_that_hardly_differ_are_not_blown_up():
    """LN's epsilon, 1e-6, is that of the public weights."""
    x = 1e-3 * normal(2, 3, 64)
    found = normalised(x, jnp.full((2, 64), 0.5), jnp.full((2, 64), 1.0), jnp.float32)
    variance = np.var(x, -1, keepdims=True)
    expected = 2 * (x - np.mean(x, -1, keepdims=True)) / np.sqrt(variance + 1e-6) + 0.5
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)


def test_it_starts_as_the_identity_and_predicts_nothing(key):
    """adaLN-Zero: no block changes what it is given, whatever it is told."""
    variables = jax.jit(NET.init)(key, X, T, Z)
    out, features = APPLY(variables, X, T, Z)
    assert not np.any(out) and np.any(features["block_0"])
    for k in (1, 2, 3):
        np.testing.assert_array_equal(features[f"block_{k}"], features["block_0"])
    kernels = variables["params"]["block_2"]
    assert not np.any(kernels["modulation"]["kernel"]) and not np.any(kernels["latent"]["kernel"])
    limit = (6 / (8 + 32)) ** 0.5  # Xavier's
    assert 0.9 * limit < np.abs(kernels["mlp0"]["kernel"]).max() <= limit


def test_prediction_depends_on_every_input(variables):
    one = np.array(APPLY(variables, X, T, Z)[0])
    for other in [(X + 0.1, T, Z), (X, T - 0.0005, Z), (X, T, Z + 0.1)]:
        assert abs(APPLY(variables, *other)[0] - one).max((1, 2, 3)).min() > 1e-4


def test_a_dropped_section_is_as_though_it_was_absent(variables):
    """Zeros everywhere are no z at all; zeros in one place are the parameters without that block's matrix."""
    none = {
        "params": {k: {n: x for n, x in p.items() if n != "latent"} for k, p in variables["params"].items()}
    }
    expected = jax.jit(NET.apply)(none, X, T)[0]
    np.testing.assert_allclose(APPLY(variables, X, T, jnp.zeros_like(Z))[0], expected, rtol=1e-5, atol=1e-6)
    block = variables["params"]["block_2"]
    silent = {**block, "latent": jax.tree.map(jnp.zeros_like, block["latent"])}
    without = {"params": {**variables["params"], "block_2": silent}}
    np.testing.assert_allclose(
        APPLY(variables, X, T, Z.at[:, 1].set(0.0))[0], APPLY(without, X, T, Z)[0], rtol=1e-5, atol=1e-6
    )


@pytest.mark.parametrize(
    ("grouping", "expected"),
    [("per_skip", [0, 1, 2, 3, 4]), ("per_level", [0, 0, 1, 1, 2]), ("whole", [0, 0, 0, 0, 0])],
)
def test_each_block_reads_its_own_section(grouping, expected):
    """Section i holds the number i, which blocks note."""
    net, read = NET.clone(depth=5, grouping=grouping), []
    z = jnp.broadcast_to(jnp.arange(net.sections, dtype=jnp.float32)[None, :, None], (2, net.sections, 4))
    variables = random_variables(net, X, T, z)

    def note(call, args, kwargs, context):
        if not isinstance(context.module, Block) or context.method_name != "__call__":
            return call(*args, **kwargs)
        read.append(int(args[2][0, 0]))
        return args[0]

    with nn.intercept_methods(note):
        net.apply(variables, X, T, z)
    assert read == expected and net.sections == len(set(expected))


def test_classes_and_labels_join_the_time():
    """No class is the null class, no label is zeros; another one changes what is predicted."""
    net = NET.clone(depth=1, class_count=3, label_dim=2)
    variables = random_variables(net, X, T)
    apply = jax.jit(net.apply)
    none = apply(variables, X, T)[0]
    null = apply(variables, X, T, classes=jnp.array([3, 3]), labels=jnp.zeros((2, 2)))[0]
    np.testing.assert_allclose(null, none, rtol=1e-6)
    for more in ({"classes": jnp.array([0, 3])}, {"labels": jnp.array([[0.0, 1.0], [0.0, 0.0]])}):
        other = np.abs(apply(variables, X, T, **more)[0] - none).max((1, 2, 3))
        assert other[0] > 1e-3 and other[1] < 1e-6
    with pytest.raises(ValueError, match="knows no classes"):
        abstract(NET, X, classes=jnp.array([0, 1]))


def test_an_encoder_is_the_net_up_to_its_tap(variables):
    """The mean of that very map, by a part of the net's own parameters."""
    params = {k: {n: x for n, x in p.items() if n != "latent"} for k, p in variables["params"].items()}
    _, features = jax.jit(NET.apply)({"params": params}, 0.5 * X, jnp.full(2, 0.3))
    for k in (0, 2):
        encoder = NET.tapped(f"block_{k}", 0.5, 0.3)
        assert isinstance(encoder, TappedDiT) and encoder.dropout == NET.dropout
        needed = jax.eval_shape(lambda encoder=encoder: encoder.init(jax.random.key(0), X))["params"]
        assert needed.keys() == {"time", "embed", *(f"block_{i}" for i in range(1, k + 1))}
        z, found = jax.jit(encoder.apply)({"params": {name: params[name] for name in needed}}, X)
        np.testing.assert_allclose(z, features[f"block_{k}"].mean((1, 2)), rtol=1e-4, atol=1e-5)
        assert found.keys() == {"map", "z", "pooled"}
    with pytest.raises(ValueError, match=r"ddae\.tap: expected one of block_0, .*block_3, found 'middle'"):
        jax.eval_shape(NET.tapped("middle", 1.0, 0.0).init, jax.random.key(0), X)


def test_the_middle_is_what_ddae_reads_of_xl():
    assert [DiT(depth=depth).middle for depth in (28, 12, 3, 2, 1)] == [
        f"block_{k}" for k in (14, 6, 2, 1, 1)
    ]


def test_bfloat16_is_near_and_gives_float32(variables):
    low = NET.clone(dtype=jnp.bfloat16)
    (out, features), made = abstract(low, X, Z)
    assert {x.dtype for x in features.values()} == {jnp.dtype("bfloat16")}
    assert {x.dtype for x in jax.tree.leaves((made, out))} == {jnp.dtype("float32")}
    exact = APPLY(variables, X, T, Z)[0]
    apart = jax.jit(low.apply)(variables, X, T, Z)[0] - exact
    assert 0 < np.sqrt(np.mean(np.square(apart))) < 0.05 * np.sqrt(np.mean(np.square(exact)))


def test_recomputing_blocks_changes_no_gradient():
    """Dropout included, which is on in training alone."""
    net = NET.clone(depth=1)
    variables = random_variables(net, X, T, Z[:, :1])

    def gradient(net):
        def loss(variables, seed):
            rngs = {"dropout": jax.random.key(seed)}
            return jnp.square(net.apply(variables, X, T, Z[:, :1], train=True, rngs=rngs)[0]).sum()

        return jax.value_and_grad(loss)

    plain, thrifty = jax.jit(gradient(net)), gradient(net.clone(remat="blocks"))
    assert "prevent_cse" in str(jax.make_jaxpr(thrifty)(variables, 3))
    one, again = plain(variables, 3), jax.jit(thrifty)(variables, 3)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-4), one, again)
    assert plain(variables, 4)[0] != one[0]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"patch": 4}, r"data\.image_size: 4x6 images do not fit model\.patch=4; take a multiple of 4"),
        ({"heads": 3}, r"model\.dit_width=8 must be a multiple of 4 and of model\.dit_heads=3"),
        ({"width": 6}, r"model\.dit_width=6 must be a multiple of 4"),
        ({"depth": 0}, r"model\.dit_depth must be 1 or more, found 0"),
        ({"remat": "all"}, r"model\.remat='all' is unknown"),
        ({"grouping": "levels"}, r"model\.grouping='levels' is unknown"),
        ({"depth": 4}, r"z has 3 sections; model\.grouping='per_skip' needs 4"),
    ],
)
def test_what_does_not_fit_dies_with_the_key(change, words):
    with pytest.raises(ValueError, match=words) as error:
        abstract(NET.clone(**change), X, Z)
    assert "\n" not in str(error.value)
