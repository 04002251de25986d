"""The consistency of two views against numpy, by its known answers, and as a part of SODA's loss."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.methods.consistency import Consistency, Projector, correlation, spread_missing, vicreg
from soda_jax.parallel.mesh import make_mesh
from soda_jax.parallel.sharding import put_batch
from tests import tiny

ON = Consistency(weight=0.1, widths=(8, 5))
KEYS = jax.random.split(jax.random.key(1), 16)


def by_numpy(p, q):
    """arXiv 2105.04906, equations 1 to 6, with numpy's own covariance."""
    total = 25 * np.mean((p - q) ** 2)
    for x in (p, q):
        covariance = np.cov(x.T)
        total += 25 / 2 * np.mean(np.maximum(0, 1 - np.sqrt(np.diag(covariance) + 1e-4)))
        total += (np.sum(covariance**2) - np.sum(np.diag(covariance) ** 2)) / x.shape[1]
    return total


def test_it_is_what_numpy_says():
    rng = np.random.default_rng(0)
    p, q = rng.normal(size=(2, 20, 6)) @ rng.normal(size=(6, 6)) * 0.4
    found = vicreg(jnp.asarray(p, jnp.float32), jnp.asarray(q, jnp.float32))
    assert float(found) == pytest.approx(by_numpy(p, q), rel=1e-5)


def test_its_parts_are_zero_where_there_is_nothing_to_complain_of():
    wide = 2 * np.sqrt(8 / 7) * np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, 1, -1, -1, 1, 1, -1, -1]]).T
    wide = jnp.asarray(wide, jnp.float32)
    assert spread_missing(wide) == 0 and float(correlation(wide)) == pytest.approx(0, abs=1e-6)
    assert float(vicreg(wide, wide)) == pytest.approx(0, abs=1e-5)
    assert float(spread_missing(jnp.zeros((8, 2)))) == pytest.approx(0.99)  # sqrt(1e-4) is all that is left
    assert float(correlation(wide[:, :1] * jnp.ones((1, 2)))) > 1


def test_in_sodas_loss_it_is_added_and_the_rest_stays_as_it_is():
    plain, more = tiny.soda(), tiny.soda(consistency=ON)
    batch, keys = tiny.batch(), KEYS
    variables = tiny.variables(more)
    alone, _ = jax.jit(plain.loss)(variables, batch, keys)
    total, aux = jax.jit(more.loss)(variables, batch, keys)
    term = aux["metrics"]["consistency"]
    assert float(total) == pytest.approx(float(alone + term), rel=1e-5) and float(term) > 0.01
    z, other = (more.latent(variables, batch[name]).reshape(16, -1) for name in ("source", "target"))
    silent = tiny.soda(consistency=ON, source_noise=0.0)
    found = silent.loss(variables, batch, keys)[1]["metrics"]["consistency"]
    p, q = (Projector(ON.widths).apply({"params": variables["params"]["projector"]}, x) for x in (z, other))
    assert float(found) == pytest.approx(0.1 * by_numpy(np.asarray(p), np.asarray(q)), rel=1e-4)
    assert "consistency" not in more.loss(variables, batch, keys, train=False)[1]["metrics"]


def test_targets_of_another_size_are_brought_to_that_of_the_source():
    method, batch = tiny.soda(consistency=ON), tiny.batch()
    small = {**batch, "target": batch["target"][:, ::2, ::2]}
    assert np.isfinite(method.loss(tiny.variables(method), small, KEYS)[0])


def test_the_batch_is_that_of_all_devices():
    """Variances and covariances are not those of each device's rows."""
    method, batch = tiny.soda(consistency=ON), tiny.batch()
    variables = tiny.variables(method)

    def term(batch):
        z = method.latent(variables, batch["source"])
        return method.further_losses(variables, z, batch, KEYS)["consistency"]

    shared = put_batch(jax.device_get(batch), tiny.spec(batch), make_mesh())
    assert float(jax.jit(term)(shared)) == pytest.approx(float(term(batch)), rel=1e-5)


def test_what_is_no_weight_and_no_projector_names_its_key():
    with pytest.raises(ValueError, match=r"model\.consistency must be 0 \(off\) or more, found -1.0"):
        Consistency(weight=-1.0, widths=(4,))
    with pytest.raises(ValueError, match=r"model\.projector must hold widths of 1 or more, found \(\)"):
        Consistency(weight=1.0, widths=())
