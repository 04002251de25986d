"""MobileNetV2 and WRN against PyTorch twins with the same weights: counts, outputs, every gradient, BatchNorm.

In float64 where there are gradients: in float32 rounding takes some of a thousand ReLU6 to the other side of a kink.
"""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn.mobilenet import MobileNetV2
from soda_jax.nn.wide_resnet import WideResNet
from tests.arrays import normal, random_variables

torch = pytest.importorskip("torch", reason="the parity tests need PyTorch: pip install torch==2.13.0")
twins = pytest.importorskip("tests.student_twins", reason="the twins need PyTorch")
parity = pytest.importorskip("tests.test_parity_torch", reason="its comparisons need PyTorch")

NETS = {
    "mobilenetv2": (MobileNetV2(6, width=0.25, stem="small"), lambda: twins.MobileNetV2(3, 6, 0.25, True)),
    "wrn": (WideResNet(16, 1, 6), lambda: twins.WideResNet(3, 16, 1, 6)),
}
COUNTED = {
    "mobilenetv2": (MobileNetV2(1000), lambda: twins.MobileNetV2(3, 1000, 1.0, False)),
    "half as wide": (MobileNetV2(1000, width=0.5), lambda: twins.MobileNetV2(3, 1000, 0.5, False)),
    "wider": (MobileNetV2(10, width=1.4), lambda: twins.MobileNetV2(3, 10, 1.4, False)),
    "wrn_28_2": (WideResNet(28, 2, 10), lambda: twins.WideResNet(3, 28, 2, 10)),
    "wrn_16_8": (WideResNet(16, 8, 10), lambda: twins.WideResNet(3, 16, 8, 10)),
}


@pytest.mark.parametrize("name", COUNTED)
def test_parameters_are_as_many_as_those_of_the_twin(name):
    net, twin = COUNTED[name]
    images = jax.ShapeDtypeStruct((1, 32, 32, 3), jnp.float32)
    params = jax.eval_shape(net.init, jax.random.key(0), images)["params"]
    assert sum(x.size for x in jax.tree.leaves(params)) == sum(p.numel() for p in twin().parameters())


def doubled(tree):
    return jax.tree.map(lambda x: np.asarray(x, np.float64), tree)


def assert_gradients_close(gradients, twin):
    """As in test_parity_torch.py; before a 1x1 convolution and BatchNorm alone a shift changes nothing."""
    ours = parity.twins.carried(gradients)
    theirs = {name: parameter.grad for name, parameter in twin.named_parameters()}
    assert set(ours) == set(theirs)
    largest = max(float(gradient.abs().max()) for gradient in theirs.values())
    for name, gradient in theirs.items():
        if name.endswith("project.norm.bias"):
            assert max(float(abs(x).max()) for x in (ours[name], gradient)) < 1e-5 * largest
        else:
            parity.assert_close(ours[name], gradient, name)


@pytest.mark.parametrize("name", NETS)
def test_training_agrees(name):
    """z, the gradient of every parameter and of the images, and the statistics after one batch."""
    x, weights = normal(8, 16, 16, 3), normal(8, 6, seed=1)
    variables = random_variables(NETS[name][0], x)
    net, twin = NETS[name][0].clone(dtype=jnp.float64), NETS[name][1]().double()

    def loss(params, x):
        (z, _), new = net.apply(variables | {"params": params}, x, True, mutable=["batch_stats"])
        return (z * weights).sum(), (z, new["batch_stats"])

    with jax.enable_x64(True):
        compute = jax.jit(jax.grad(loss, (0, 1), has_aux=True))
        (gradients, at_x), (z, new) = jax.device_get(compute(*doubled((variables["params"], x))))
    parity.twins.load(twin, *variables.values())
    counts, x = parity.counted(twin), parity.twins.images(x).double().requires_grad_()
    out = twin(x)
    (out * torch.from_numpy(np.array(weights, np.float64))).sum().backward()
    parity.assert_close(z, out)
    parity.assert_close(parity.twins.images(at_x), x.grad)
    assert_gradients_close(gradients, twin)
    parity.assert_statistics_close(variables["batch_stats"], new, twin, counts)


def test_mobilenet_in_evaluation_with_the_stem_of_large_images():
    net, x = MobileNetV2(6, width=0.25), normal(2, 64, 64, 3)
    variables = random_variables(net, x)
    twin = parity.twins.load(twins.MobileNetV2(3, 6, 0.25, False), *variables.values())
    parity.assert_close(jax.jit(net.apply)(variables, x)[0], twin.eval()(parity.twins.images(x)))
