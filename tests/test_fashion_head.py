"""The README's PyTorch head on a frozen encoder of Fashion-MNIST against the probe of the same encoder."""

import re
from pathlib import Path

import jax
import pytest

from data import prepare
from experiments import build, export, methods, probing, runs
from experiments.configs import soda_fashion_mnist
from experiments.runs import open_run
from soda_jax.training.checkpoints import Checkpoints
from soda_jax.training.state import create
from tests import prepared_data
from tests.test_readme_examples import block, run

IDX = Path("/usr/share/datasets/fashion-mnist")


@pytest.fixture
def workdir(tmp_path):
    """A run whose encoder has its initial weights: 8 channels wide, to be quick."""
    if not IDX.is_dir():
        pytest.skip("Debian's dataset-fashion-mnist is not installed")
    place = str(prepared_data.data_dir())
    assert prepare.main(["fashion_mnist", f"--source={IDX}", f"--data_dir={place}"]) == 0
    c = soda_fashion_mnist.get_config()
    c.data.dir, c.compilation_cache = place, ""
    c.model.update(
        encoder_width=8, channels=8, multipliers=(1,), attention=(False,), blocks=1, groups=4, latent_dim=24
    )
    (tmp_path / "run").mkdir()
    runs.write_config(tmp_path / "run", c, {}, runs.data_info(build.dataset(c)))
    spec = build.batch_spec(c)
    method, optimizer = methods.method(c, spec), build.optimizer(c)
    state = jax.jit(lambda key: create(method, optimizer, key, spec))(build.init_key(c))
    with Checkpoints(tmp_path / "run" / "checkpoints", keep=1, metadata={}) as checkpoints:
        checkpoints.save(1, state, {})
    return tmp_path / "run"


def test_the_head_has_the_accuracy_of_the_probe(workdir, tmp_path):
    pytest.importorskip("torch")
    found = open_run(workdir)
    job = probing.prepare(found)
    tables = probing.tables(job, job.encoder, found.encoder_variables())
    expected = probing.measured(job, tables, "pooled", "pooled")["label"]["linear"]
    export.export(found, tmp_path / "BUNDLE")
    said = run(block("LBFGS"), tmp_path)
    accuracy = float(re.fullmatch(r"test accuracy (\d+\.\d)%\n", said)[1])
    assert 60 < accuracy < 90 and accuracy == pytest.approx(100 * expected, abs=0.5)
