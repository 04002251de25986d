"""Our networks and SODA's loss against PyTorch twins with the same weights: outputs and every gradient.

All in float32, to 1e-4 of the largest entry of each tensor, BatchNorm in training mode. PyTorch's running
variance takes the unbiased variance of the batch, Flax's the biased: ours is corrected by n / (n - 1) first.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.diffusion.schedules import Schedule
from soda_jax.diffusion.timesteps import draw_times
from soda_jax.methods import soda
from soda_jax.nn.resnet import ResNet
from soda_jax.nn.unet import UNet
from tests.arrays import normal, random_variables

torch = pytest.importorskip("torch", reason="the parity tests need PyTorch: pip install torch==2.13.0")
twins = pytest.importorskip("tests.torch_twins", reason="the twins need PyTorch")

TOLERANCE = 1e-4
DENOISER = UNet(
    channels=8, multipliers=(1, 2), blocks=1, attention=(False, True), heads=2, groups=4, dropout=0.0, patch=2
)


def assert_close(ours, theirs, name=""):
    """Within TOLERANCE of the largest entry."""
    ours, theirs = (np.asarray(x.detach() if torch.is_tensor(x) else x, np.float64) for x in (ours, theirs))
    assert ours.shape == theirs.shape, name
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max(), name


def assert_gradients_close(gradients, module):
    """Every parameter's gradient, under its torch name; none may be missing on either side."""
    ours = twins.carried(gradients)
    theirs = {name: parameter.grad for name, parameter in module.named_parameters()}
    assert set(ours) == set(theirs)
    for name, gradient in theirs.items():
        assert_close(ours[name], gradient, name)


def counted(module):
    """Let each BatchNorm of the module write down how many values a channel it normalised by."""
    counts = {}
    for name, layer in module.named_modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.register_forward_hook(
                lambda layer, inputs, output, name=name: counts.update(
                    {name: output.numel() // output.shape[1]}
                )
            )
    return counts


def assert_statistics_close(old, new, module, counts):
    """Running mean and variance after one batch; the variance after correcting ours to the unbiased one."""
    theirs = module.state_dict()
    before = twins.carried(old)
    for name, ours in twins.carried(new).items():
        n = counts[name.rsplit(".", 1)[0]]
        if name.endswith("running_var"):
            ours = 0.9 * before[name] + (ours - 0.9 * before[name]) * n / (n - 1)
        assert_close(ours, theirs[name], name)


def test_resnet_18_in_training():
    net, x, weights = ResNet(18, 6, width=4, stem="small"), normal(8, 16, 16, 3), normal(8, 6, seed=1)
    variables = random_variables(net, x)

    def loss(params, x):
        (z, _), new = net.apply(variables | {"params": params}, x, True, mutable=["batch_stats"])
        return (z * weights).sum(), (z, new["batch_stats"])

    compute = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
    (gradients, at_x), (z, new) = compute(variables["params"], x)
    twin = twins.load(twins.ResNet18(3, 6, 4, small=True), *variables.values())
    counts, x = counted(twin), twins.images(x).requires_grad_()
    out = twin(x)
    (out * torch.from_numpy(np.array(weights))).sum().backward()
    assert_close(z, out)
    assert_close(twins.images(at_x), x.grad)
    assert_gradients_close(gradients, twin)
    assert_statistics_close(variables["batch_stats"], new, twin, counts)


def test_resnet_18_in_evaluation():
    """With the running statistics, and the stem of large images."""
    net, x = ResNet(18, 6, width=4), normal(2, 32, 32, 3)
    variables = random_variables(net, x)
    twin = twins.load(twins.ResNet18(3, 6, 4, small=False), *variables.values())
    assert_close(jax.jit(net.apply)(variables, x)[0], twin.eval()(twins.images(x)))


def test_unet():
    xt, t, z = normal(3, 16, 16, 3), jnp.array([0.001, 0.4, 1.0]), normal(3, DENOISER.sections, 5, seed=1)
    weights = normal(3, 16, 16, 3, seed=2)
    params = random_variables(DENOISER, xt, t, z)["params"]

    def loss(params, xt, z):
        prediction, _ = DENOISER.apply({"params": params}, xt, t, z, train=True)
        return (prediction * weights).sum(), prediction

    (gradients, at_xt, at_z), prediction = jax.jit(jax.grad(loss, (0, 1, 2), has_aux=True))(params, xt, z)
    twin = twins.load(twins.UNet(3, 5, DENOISER), params)
    xt, z = twins.images(xt).requires_grad_(), torch.from_numpy(np.array(z)).requires_grad_()
    out = twin(xt, torch.from_numpy(np.array(t)), z)
    (out * twins.images(weights)).sum().backward()
    assert_close(twins.images(prediction), out)
    assert_close(twins.images(at_xt), xt.grad)
    assert_close(at_z, z.grad)
    assert_gradients_close(gradients, twin)


def draws(method, keys, source, target):
    """What `SODA.loss` draws from these keys, as the twin takes it."""
    t = draw_times(method.schedule, soda.stream(keys, soda.TIME))
    eps = soda.normal_like(soda.stream(keys, soda.NOISE), target)
    noise = method.source_noise * soda.normal_like(soda.stream(keys, soda.SOURCE), source)
    mask_keys = soda.stream(keys, soda.MASK)
    keep = soda.draw_mask(mask_keys, method.sections, method.mask_section, method.mask_all)
    assert 0 < keep.mean() < 1  # or masking is not tested
    return (
        torch.from_numpy(np.array(t)),
        twins.images(eps),
        twins.images(noise),
        torch.from_numpy(np.array(keep)),
    )


def test_soda_loss():
    """From uint8 views to the gradient of every parameter of encoder and denoiser."""
    encoder = ResNet(18, 4 * DENOISER.sections, width=4, stem="small")
    method = soda.SODA(encoder=encoder, denoiser=DENOISER, schedule=Schedule(), mask_section=0.3)
    rng = np.random.default_rng(0)
    batch = {
        name: jnp.asarray(rng.integers(0, 256, (8, 16, 16, 3)), jnp.uint8) for name in ("source", "target")
    }
    views = jnp.zeros((2, 8, 16, 16, 3))
    e = random_variables(encoder, views[0])
    d = random_variables(DENOISER, views[1], jnp.ones(8), jnp.ones((8, DENOISER.sections, 4)), seed=1)
    variables = {
        "params": {"encoder": e["params"], "denoiser": d["params"]},
        "batch_stats": {"encoder": e["batch_stats"]},
    }
    keys = jax.random.split(jax.random.key(5), 8)

    def loss(params):
        return method.loss(variables | {"params": params}, batch, keys)

    (value, aux), gradients = jax.jit(jax.value_and_grad(loss, has_aux=True))(variables["params"])
    twin = twins.SODA(
        twins.ResNet18(3, encoder.latent_dim, 4, True), twins.UNet(3, 4, DENOISER), DENOISER.sections
    )
    twins.load(twin, variables["params"], variables["batch_stats"])
    counts = counted(twin)
    out = twin(
        *(twins.images(batch[name]) / 127.5 - 1 for name in ("source", "target")),
        *draws(method, keys, *views),
    )
    out.backward()
    assert_close(value, out)
    assert_gradients_close(gradients, twin)
    assert_statistics_close(variables["batch_stats"], aux["batch_stats"], twin, counts)
