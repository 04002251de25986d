"""Features, heads, neighbours and drawings on 1 and on 8 devices: the same answers."""

import jax
import numpy as np
import pytest

from experiments.drawing import Draw, draw
from soda_jax.evaluation.features import Extractor
from soda_jax.evaluation.linear_probe import (
    LinearProbe,
    fit_heads,
    minibatches,
    normalisation,
    placed,
    probe,
    shared_out,
)
from soda_jax.evaluation.nearest_neighbours import neighbours
from soda_jax.parallel.collectives import collectives
from soda_jax.parallel.mesh import make_mesh
from tests import small_run, tiny
from tests.methods import METHODS
from tests.test_features import batches

SETTINGS = LinearProbe(learning_rates=(3e-3, 1e-2, 3e-2), weight_decays=(1e-3,), images=4000, batch=50)
CLASSES = (3, 2)


@pytest.fixture(scope="module")
def meshes():
    return make_mesh(1, 1), make_mesh(8, 1), make_mesh(2, 4)


@pytest.fixture(scope="module")
def clusters():
    """203 rows of 10 features, and two labels of them."""
    rng = np.random.default_rng(0)
    first, second = rng.integers(0, 3, 203), rng.integers(0, 2, 203)
    centres = rng.normal(size=(3, 2, 10))
    x = centres[first, second] + rng.normal(size=(203, 10))
    return x.astype(np.float32), np.stack([first, second])


@pytest.mark.parametrize("name", METHODS)
def test_features_of_every_method(meshes, name):
    method = METHODS[name]
    variables = tiny.variables(method)
    images = np.asarray(tiny.batch(size=21)["source"])
    one, *others = (
        Extractor(method.encode, ("z", "pooled"), mesh)(variables, batches(9, images)) for mesh in meshes
    )
    for other in others:
        for feature in ("z", "pooled"):
            np.testing.assert_allclose(other.features[feature], one.features[feature], rtol=1e-5, atol=1e-5)
        assert other.index.tolist() == one.index.tolist() == list(range(21))


def fitted(x, y, mesh, most):
    """Heads of three runs, each of them on a device of its own, of features that lie whole or in rows."""
    order, real = minibatches(np.arange(len(x)), SETTINGS), np.array([[1, 1, 1], [1, 1, 0]], bool)
    runs = shared_out(np.repeat(np.asarray(SETTINGS.grid())[:, None], 2, axis=1), mesh)
    arguments = (placed(x, mesh, most), normalisation(x), order, y.astype(np.int32), real, *runs)
    heads = fit_heads(*arguments)
    text = fit_heads.lower(*arguments).compile().as_text()
    return jax.tree.map(lambda head: np.asarray(head)[:3], heads), heads, collectives(text)


@pytest.mark.parametrize("most", [10**9, 0])
def test_runs_of_the_probe_are_shared_out(meshes, clusters, most):
    """Eight devices fit a run each; they talk only to fetch rows that lie elsewhere, a minibatch at a time."""
    (one, _, _), (many, heads, found) = (fitted(*clusters, mesh, most) for mesh in meshes[:2])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5), many, one)
    assert {shard.data.shape[0] for shard in heads["kernel"].addressable_shards} == {1}
    assert {(c.kind, c.shapes) for c in found} == (set() if most else {("all-reduce", (("f32", (50, 10)),))})


def test_answers_of_the_probe(meshes, clusters):
    x, y = clusters
    answers = [probe(x, y, CLASSES, np.arange(203), x[:77], SETTINGS, mesh=mesh) for mesh in meshes]
    for one, *others in zip(*answers, strict=True):
        for other in others:
            assert (other.learning_rate, other.weight_decay) == (one.learning_rate, one.weight_decay)
            assert other.holdout == one.holdout
            np.testing.assert_array_equal(other.predicted, one.predicted)


def test_neighbours(meshes, clusters):
    x, _ = clusters
    one, *others = (neighbours(x, x[:45] + 0.1, 7, chunk=64, query_chunk=20, mesh=mesh) for mesh in meshes)
    for other in others:
        np.testing.assert_array_equal(other, one)


def test_drawings(meshes):
    """Codes of the encoder to 1e-5, and pictures of them: a rounding may fall on the other side."""
    config, method = small_run.config(), tiny.soda(encoder=tiny.Encoder(batch_norm=True))
    config.data.update(image_size=8, source_size=8, channels=1)
    config.samples.update(steps=3, guidance=1.0)
    images = np.asarray(tiny.batch(size=5)["source"])
    codes, pictures = [], []
    for mesh in meshes:
        encode, paint = draw(config, method, tiny.variables(method), 0, mesh)
        codes.append(encode(images))
        (drawn,) = paint([Draw(z=codes[0][:, None].repeat(2, axis=1), noise=np.tile([0, 1], (5, 1)))])
        pictures.append(drawn.astype(int))
    assert pictures[0].shape == (5, 2, 8, 8, 1) and pictures[0].std() > 10
    for code, picture in zip(codes[1:], pictures[1:], strict=True):
        np.testing.assert_allclose(code, codes[0], rtol=1e-5, atol=1e-5)
        assert np.abs(picture - pictures[0]).max() <= 1
