"""The examples of README.md, each run as it stands there, in a process of its own beside a bundle."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import bundles

ROOT = Path(__file__).parent.parent
BLOCKS = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.S)
CHECK = """
samples = dict(np.load("BUNDLE/samples.npz"))
for name in ("z", "pooled"):
    found = features[name]
    found = found.detach().numpy() if hasattr(found, "detach") else np.asarray(found)
    assert np.abs(found - samples[name]).max() < 1e-4 * np.abs(samples[name]).max()
print("alike")
"""
SIGNS = {
    "soda_jax.export": "jax",
    "torch_encoder": "torch",
    "onnxruntime": "onnxruntime",
    "numpy_encoder": "numpy",
}


def block(sign: str) -> str:
    """The first example that holds the word."""
    return next(text for text in BLOCKS if sign in text)


def run(text: str, folder: Path) -> str:
    """Its output."""
    found = subprocess.run(
        [sys.executable, "-c", text],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert found.returncode == 0, found.stderr
    return found.stdout


@pytest.mark.parametrize("sign", SIGNS)
def test_an_example_gives_the_features_of_the_samples(sign, tmp_path):
    pytest.importorskip(SIGNS[sign])
    shutil.copytree(bundles.written("resnet18"), tmp_path / "BUNDLE")
    assert run(block(sign) + CHECK, tmp_path) == "alike\n"


def test_every_example_is_tested():
    heads = [text for text in BLOCKS if "LBFGS" in text]
    assert len(BLOCKS) == len(SIGNS) + len(heads) and len(heads) == 1
    assert len({block(sign) for sign in SIGNS}) == len(SIGNS)
    assert np.all([block(sign) not in heads for sign in SIGNS])
