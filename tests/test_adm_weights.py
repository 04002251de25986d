"""ADM's U-Net and the reader of its public weights: beside a PyTorch twin, by count, and what is refused."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn import adm_weights
from soda_jax.nn.adm_weights import ADM, Public
from soda_jax.nn.ddpm_unet import MIDDLE, DDPMUNet
from tests.arrays import normal

SMALL = {"channels": 64, "multipliers": (1, 2), "blocks": 1, "attention": (False, True)}
COMMON = {"head_channels": 64, "resample": "block", "layout": "adm"}
NET = ADM(net=DDPMUNet(**SMALL, **COMMON), class_count=4, learn_sigma=True)
TIMES = np.array([0, 121, 999])


def state(adm=NET, **changes):
    """Random arrays of the true shapes, under the public names; None takes one away."""
    rng = np.random.default_rng(0)
    arrays = {name: rng.normal(size=shape).astype(np.float32) for name, _, shape in adm_weights.layout(adm)}
    arrays |= {name.replace("__", "."): x for name, x in changes.items()}
    return {name: x for name, x in arrays.items() if x is not None}


def twin_of(**more):
    """(torch, a small twin with random weights). Skips where there is no PyTorch."""
    torch = pytest.importorskip("torch", reason="the twin needs PyTorch")
    twins = pytest.importorskip("tests.adm_twins")
    return torch, twins.randomised(twins.ADM(**SMALL, **more))


@pytest.mark.parametrize(("order", "label"), [("new", 2), ("legacy", None)])
def test_answers_are_those_of_a_twin_at_the_same_times(order, label, tmp_path):
    """Of a file, of a class (the mean of all of them is one too), and what RepFusion distils."""
    torch, twin = twin_of(classes=4, new=order == "new")
    if label is None:
        with torch.no_grad():
            twin.label_emb.weight[1] = twin.label_emb.weight[[0, 2, 3]].mean(0)
    torch.save(twin.state_dict(), tmp_path / "small.pt")
    net, params = adm_weights.read(tmp_path / "small.pt", order, label)
    assert net == NET.net
    seen, images = [], np.asarray(normal(3, 8, 8, 3))
    twin.middle_block[2].out_layers[3].register_forward_hook(lambda module, given, out: seen.append(out))
    with torch.no_grad():
        x, classes = torch.from_numpy(images.transpose(0, 3, 1, 2).copy()), torch.full((3,), label or 1)
        expected = twin(x, torch.from_numpy(TIMES), classes)[:, :3].numpy().transpose(0, 2, 3, 1)
    t = jnp.asarray((TIMES + 1) / 1000, jnp.float32)
    found, maps = jax.jit(net.apply)({"params": params}, images, t)
    np.testing.assert_allclose(found, expected, atol=1e-4 * np.abs(expected).max())
    branch = seen[0].numpy().transpose(0, 2, 3, 1)
    np.testing.assert_allclose(maps[MIDDLE], branch, atol=1e-4 * np.abs(branch).max())


def test_the_twin_of_the_public_model_has_as_many_parameters():
    torch = pytest.importorskip("torch", reason="the twin needs PyTorch")
    twins = pytest.importorskip("tests.adm_twins")
    with torch.device("meta"):
        twin = twins.ADM(192, (1, 2, 3, 4), 3, (False, True, True, True), classes=1000)
    theirs = {name: tuple(p.shape) for name, p in twin.state_dict().items()}
    assert theirs == {name: shape for name, _, shape in adm_weights.layout(PUBLIC_64)}


# Without PyTorch --------------------------------------------------------------------------------------------

SIZES_64 = {"channels": 192, "multipliers": (1, 2, 3, 4), "blocks": 3, "attention": (False, True, True, True)}
PUBLIC_64 = ADM(net=DDPMUNet(**SIZES_64, **COMMON), class_count=1000, learn_sigma=True)


def test_the_public_model_of_64_pixels_is_known_from_its_shapes():
    """64x64_diffusion.pt: its parameters, and what a net without classes and sigma has of them."""
    shapes = {name: shape for name, _, shape in adm_weights.layout(PUBLIC_64)}
    count = sum(int(np.prod(shape)) for shape in shapes.values())
    assert count == 295_904_454
    found = adm_weights.network(
        {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    )
    assert found == PUBLIC_64 and (found.public.side, found.public.schedule) == (64, "cosine")
    abstract = jax.eval_shape(found.net.init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)), jnp.zeros(1))
    less = 1000 * 4 * 192 + 3 * (9 * 192 + 1)
    assert sum(x.size for x in jax.tree.leaves(abstract)) == count - less
    image = jnp.zeros((1, 64, 64, 3))
    _, maps = jax.eval_shape(
        found.net.apply, abstract, image, jnp.zeros(1)
    )  # what Tiny-ImageNet's student learns
    assert maps[MIDDLE].shape == (1, 8, 8, 768)


def test_the_public_model_of_256_pixels_is_known_too():
    """256x256_diffusion_uncond.pt."""
    sizes = {"channels": 256, "multipliers": (1, 1, 2, 2, 4, 4), "blocks": 2}
    net = DDPMUNet(**sizes, attention=(False,) * 3 + (True,) * 3, **COMMON)
    adm = ADM(net=net, learn_sigma=True)
    shapes = {name: shape for name, _, shape in adm_weights.layout(adm)}
    assert sum(int(np.prod(shape)) for shape in shapes.values()) == 552_814_086
    arrays = {name: np.broadcast_to(np.float32(0), shape) for name, shape in shapes.items()}
    assert adm_weights.network(arrays) == adm and adm.public == Public(
        side=256, schedule="linear", order="legacy"
    )


def test_every_parameter_of_the_network_has_its_array():
    params = adm_weights.adm_params(state(), NET, "new")
    wanted = jax.eval_shape(NET.net.init, jax.random.key(0), jnp.zeros((1, 8, 8, 3)), jnp.zeros(1))["params"]
    assert jax.tree.map(np.shape, params) == jax.tree.map(lambda x: x.shape, wanted)
    assert adm_weights.network(state()) == NET
    plain = ADM(net=NET.net)
    assert adm_weights.network(state(plain)) == plain
    one_level = ADM(net=NET.net.clone(multipliers=(1,), attention=(True,), blocks=2))
    assert adm_weights.network(state(one_level)) == one_level


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"middle_block__1__qkv__weight": None}, r"small\.pt has no 'middle_block\.1\.qkv\.weight'"),
        (
            {"output_blocks__0__0__emb_layers__1__weight": np.zeros((128, 256))},
            r"emb_layers\.1\.weight' has shape \[128, 256\], expected \[256, 256\]",
        ),
        ({"input_blocks__2__0__op__weight": np.zeros(3)}, r"holds 'input_blocks\.2\.0\.op\.weight', which"),
        ({"time_embed__0__weight": None}, r"has no 'time_embed\.0\.weight'.*give ADM's U-Net"),
        ({"input_blocks__3__0__out_layers__3__bias": np.zeros(96)}, r"levels of \[64, 96\] are no ADM"),
    ],
)
def test_a_file_that_does_not_fit_is_told_by_key(changes, words):
    arrays = state(**changes)
    with pytest.raises(ValueError, match=words) as error:
        adm_weights.adm_params(arrays, adm_weights.network(arrays, "small.pt"), "new", path="small.pt")
    assert "\n" not in str(error.value)


def test_an_order_and_a_class_that_there_are_not_are_told():
    with pytest.raises(ValueError, match="in which order, new or legacy"):
        adm_weights.adm_params(state(), NET)
    with pytest.raises(ValueError, match="class 4: this ADM knows 4, counted from 0"):
        adm_weights.adm_params(state(), NET, "new", label=4)
