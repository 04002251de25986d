"""DiT and the reader of its public weights against a PyTorch twin with the public names: outputs and every gradient."""

import itertools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.nn import dit_weights
from soda_jax.nn.dit import SIZES, DiT
from tests.arrays import normal

TOLERANCE = 1e-4  # of the largest entry of each array
SMALL = {"width": 16, "depth": 3, "heads": 2, "patch": 2}
STEPS = np.array([0, 120, 999])
TIMES = jnp.asarray((STEPS + 1) / 1000, jnp.float32)


def twin_of(torch_free=SMALL, **more):
    """(torch, the module that makes twins, a small twin with random weights). Skips where there is no PyTorch."""
    torch = pytest.importorskip("torch", reason="the twin needs PyTorch")
    twins = pytest.importorskip("tests.dit_twins")
    return torch, twins, twins.randomised(twins.DiT(8, 4, **torch_free, **more))


def assert_close(ours, theirs, name=""):
    ours, theirs = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    assert ours.shape == theirs.shape, name
    assert np.abs(ours - theirs).max() <= TOLERANCE * np.abs(theirs).max(), name


def assert_trees_close(ours, theirs):
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for path, leaf in jax.tree.leaves_with_path(theirs):
        assert_close(dict(jax.tree.leaves_with_path(ours))[path], leaf, str(path))


def nchw(x):
    return np.array(x).transpose(0, 3, 1, 2).copy()


def gradients_of(net, params, weights, x, *inputs):
    """Of the weighted sum of prediction and sigma, by parameters, image and z; and both, side by side."""

    def loss(params, x, z):
        out, features = net.apply({"params": params}, x, TIMES, z, classes=inputs[1])
        both = jnp.concatenate([out, features["sigma"]], -1) if net.learn_sigma else out
        return (both * weights).sum(), both

    argnums = (0, 1) if inputs[0] is None else (0, 1, 2)
    return jax.jit(jax.grad(loss, argnums, has_aux=True))(params, x, inputs[0])


def test_with_classes_and_sigma_it_computes_what_the_twin_computes():
    """The weights carried across by the reader of public files, and the gradients back by the same."""
    torch, twins, twin = twin_of(classes=5, sigma=True)
    net = dit_weights.network(twins.state(twin), heads=2)
    assert net == DiT(**SMALL, out_channels=4, class_count=5, learn_sigma=True)
    params = jax.tree.map(jnp.asarray, dit_weights.dit_params(twins.state(twin), net))
    x, weights, classes = normal(3, 8, 8, 4), normal(3, 8, 8, 8, seed=1), np.array([0, 3, 5])
    (at_params, at_x), found = gradients_of(net, params, weights, x, None, jnp.asarray(classes))
    seen = torch.from_numpy(nchw(x)).requires_grad_()
    out = twin(seen, torch.from_numpy(STEPS), torch.from_numpy(classes))
    (out * torch.from_numpy(nchw(weights))).sum().backward()
    assert_close(nchw(found), out.detach())
    assert_close(nchw(at_x), seen.grad)
    assert_trees_close(at_params, dit_weights.dit_params(twins.gradients(twin), net))


def test_sections_of_z_join_the_time_of_their_own_block():
    """Its matrix of z has no public name, and travels by itself."""
    torch, twins, twin = twin_of(section_dim=5)
    net, latent = DiT(**SMALL, out_channels=4), re.compile(r"blocks\.(\d)\.latent\.weight")

    def carried(arrays):
        public = {name: x for name, x in arrays.items() if not latent.match(name)}
        params = dit_weights.dit_params(public, net)
        for name in arrays.keys() - public.keys():
            block = f"block_{int(latent.match(name)[1]) + 1}"
            params[block]["latent"] = {"kernel": arrays[name].T}
        return params

    x, z, weights = normal(3, 8, 8, 4), normal(3, 3, 5, seed=2), normal(3, 8, 8, 4, seed=1)
    params = jax.tree.map(jnp.asarray, carried(twins.state(twin)))
    (at_params, at_x, at_z), found = gradients_of(net, params, weights, x, z, None)
    seen, told = torch.from_numpy(nchw(x)).requires_grad_(), torch.from_numpy(np.array(z)).requires_grad_()
    out = twin(seen, torch.from_numpy(STEPS), z=told)
    (out * torch.from_numpy(nchw(weights))).sum().backward()
    assert_close(nchw(found), out.detach())
    assert_close(nchw(at_x), seen.grad)
    assert_close(at_z, told.grad)
    assert_trees_close(at_params, carried(twins.gradients(twin)))


def test_a_file_of_torch_save_gives_the_net_under_its_null_class_to_ddae(tmp_path):
    torch, _, twin = twin_of(classes=5, sigma=True)
    torch.save(twin.state_dict(), tmp_path / "small.pt")
    net, params = dit_weights.without_classes(*dit_weights.read(tmp_path / "small.pt", heads=2))
    assert net == DiT(**SMALL, out_channels=4)
    x = normal(3, 8, 8, 4)
    with torch.no_grad():
        expected = twin(torch.from_numpy(nchw(x)), torch.from_numpy(STEPS), torch.full((3,), 5))[:, :4]
    assert_close(nchw(jax.jit(net.apply)({"params": params}, x, TIMES)[0]), expected)


def diffusers_twin():
    """(torch, its DiT of SMALL's sizes with random weights). Skips where diffusers is not installed."""
    torch, diffusers = pytest.importorskip("torch"), pytest.importorskip("diffusers")
    twins = pytest.importorskip("tests.dit_twins")
    net = diffusers.DiTTransformer2DModel(
        num_attention_heads=2,
        attention_head_dim=8,
        in_channels=4,
        out_channels=8,
        num_layers=3,
        sample_size=8,
        patch_size=2,
        num_embeds_ada_norm=5,
        norm_eps=1e-6,
    )
    return torch, twins.randomised(net).eval()


def public_names(theirs):
    """Weights of diffusers' DiT, whose blocks each have the embedders of time and class, under the public names."""
    block = {"norm1.linear": "adaLN_modulation.1", "attn1.to_out.0": "attn.proj"}
    block |= {"ff.net.0.proj": "mlp.fc1", "ff.net.2": "mlp.fc2"}
    layers = {f"transformer_blocks.{k}.{x}": f"blocks.{k}.{y}" for k in range(3) for x, y in block.items()}
    layers |= {"proj_out_1": "final_layer.adaLN_modulation.1", "proj_out_2": "final_layer.linear"}
    layers |= {"pos_embed.proj": "x_embedder.proj"}
    first = "transformer_blocks.0.norm1.emb"
    layers |= {f"{first}.timestep_embedder.linear_{i + 1}": f"t_embedder.mlp.{2 * i}" for i in (0, 1)}
    found = {f"{y}.{leaf}": theirs[f"{x}.{leaf}"] for x, y in layers.items() for leaf in ("weight", "bias")}
    for k, leaf in itertools.product(range(3), ("weight", "bias")):
        qkv = [theirs[f"transformer_blocks.{k}.attn1.to_{x}.{leaf}"] for x in "qkv"]
        found[f"blocks.{k}.attn.qkv.{leaf}"] = np.concatenate(qkv)
    return {**found, dit_weights.TABLE: theirs[f"{first}.class_embedder.embedding_table.weight"]}


def test_it_computes_what_diffusers_computes():
    """An implementation that others wrote; of (2) it has K - 1 below k, where the public model has K."""
    torch, twin = diffusers_twin()
    first = twin.transformer_blocks[0].norm1.emb
    for block in twin.transformer_blocks:
        block.norm1.emb.load_state_dict(first.state_dict())
        block.norm1.emb.time_proj.downscale_freq_shift = 0
    state = public_names({name: x.numpy() for name, x in twin.state_dict().items()})
    net = dit_weights.network(state, heads=2)
    x, classes = normal(3, 8, 8, 4), np.array([0, 3, 5])
    with torch.no_grad():
        steps, kinds = torch.from_numpy(STEPS), torch.from_numpy(classes)
        expected = twin(torch.from_numpy(nchw(x)), timestep=steps, class_labels=kinds).sample
    params = jax.tree.map(jnp.asarray, dit_weights.dit_params(state, net))
    out, features = jax.jit(net.apply)({"params": params}, x, TIMES, classes=jnp.asarray(classes))
    assert_close(nchw(jnp.concatenate([out, features["sigma"]], -1)), expected)


@pytest.mark.parametrize("size", SIZES)
def test_the_public_sizes_have_as_many_parameters_as_the_twin(size):
    """At patch 2, of latents of 32 x 32 x 4, with 1000 classes and sigma; and a file of the true shapes is read."""
    torch, twins, _ = twin_of()
    width, depth, heads = SIZES[size]
    with torch.device("meta"):
        twin = twins.DiT(32, 4, width, depth, heads, 2, classes=1000, sigma=True)
    state = {name: np.broadcast_to(np.float32(0), p.shape) for name, p in twin.state_dict().items()}
    state["pos_embed"] = twins.places(16, width).numpy()
    net = dit_weights.network(state)
    assert (net.heads, net.class_count, net.learn_sigma) == (heads, 1000, True)
    found = {path for path, _ in leaves(dit_weights.layout(net))}
    x, t = jnp.zeros((1, 32, 32, 4)), jnp.zeros(1)
    wanted = jax.eval_shape(net.init, jax.random.key(0), x, t)["params"]
    ours = {
        jax.tree_util.keystr(p, simple=True, separator="/"): x.size
        for p, x in jax.tree.leaves_with_path(wanted)
    }
    assert found == ours.keys()
    theirs = sum(p.numel() for p in twin.parameters() if p.requires_grad)
    assert sum(ours.values()) == theirs
    assert sum(x.size for x in state.values()) == theirs + 256 * width


def leaves(layout):
    return {(ours, shape) for _, ours, shape in layout}
