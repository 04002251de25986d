"""Every reader of a bundle gives JAX's features, refuses a damaged bundle, and says what is wrong with images."""

import re
import shutil
import subprocess
import sys

import numpy as np
import pytest
from flax.traverse_util import flatten_dict
from orbax.checkpoint import v1 as ocp

from soda_jax.export import bundle
from soda_jax.export.encoders import describe
from tests import bundles

READERS = ("jax", "stablehlo", "numpy", "onnx", "torch")
UNREAD = [(family, name) for family in bundles.JAX_AND_ONNX for name in ("numpy", "torch")]
READ = [(family, name) for family in bundles.ENCODERS for name in READERS if (family, name) not in UNREAD]


def reader(name):
    found = bundles.readers()
    if name not in found:
        pytest.skip(f"{ {'onnx': 'onnxruntime'}.get(name, name) } is not installed")
    return found[name]


@pytest.mark.parametrize(("family", "name"), READ)
def test_features_agree_for_every_batch_size(family, name):
    folder = bundles.written(family)
    encode, encoder = reader(name)(folder), bundles.encoder(family)
    with np.load(folder / "samples.npz") as samples:
        expected = dict(samples)
    assert bundles.distance(encode(expected.pop("images")), expected) < 1e-4
    for count in (1, 7, 64):
        images = bundles.images(encoder.image_shape, count, seed=count)
        expected = {k: np.asarray(x) for k, x in encoder(images).items()}
        assert expected["z"].shape == (count, 6) and expected["z"].std() > 0.01
        assert bundles.distance(encode(images), expected) < 1e-4


@pytest.mark.parametrize("name", ("jax", "numpy", "torch"))
def test_floats_in_minus_one_to_one_are_the_images_that_bytes_are(name):
    encode = reader(name)(bundles.written("vit"))
    images = bundles.images((16, 24, 3), 3)
    expected = {k: np.asarray(x) for k, x in encode(images).items()}
    assert bundles.distance(encode(images.astype(np.float32) / 127.5 - 1), expected) < 1e-5


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("family", ("resnet18",))
def test_bfloat16_weights_are_read_by_all(family, name):
    folder = bundles.written(family, "bfloat16")
    with np.load(folder / "samples.npz") as samples:
        expected = dict(samples)
    images = expected.pop("images")
    assert bundles.distance(reader(name)(folder)(images), expected) < 1e-4
    rounded = bundles.distance(
        {k: np.asarray(x) for k, x in bundles.encoder(family)(images).items()}, expected
    )
    assert 1e-4 < rounded < 0.1


@pytest.mark.parametrize(("family", "name"), UNREAD)
def test_a_reader_says_which_nets_it_reads(family, name):
    kind = describe(bundles.encoder(family).module)["family"]
    with pytest.raises(ValueError, match=rf"holds a {kind}, this file reads \['resnet', 'vit'\]"):
        reader(name)(bundles.written(family))


# What is refused ------------------------------------------------------------------------------------------------


@pytest.fixture
def copy(tmp_path):
    return shutil.copytree(bundles.written("resnet18"), tmp_path / "bundle")


@pytest.mark.parametrize("name", READERS)
@pytest.mark.parametrize("file", (*bundle.FILES, bundle.MANIFEST))
def test_one_flipped_bit_is_refused(copy, name, file):
    load, data = reader(name), bytearray((copy / file).read_bytes())
    load(copy)
    for place in (0, len(data) // 2, len(data) - 1):
        data[place] ^= 1
        (copy / file).write_bytes(data)
        with pytest.raises(ValueError, match=r"damaged|missing"):
            load(copy)
        data[place] ^= 1
    (copy / file).write_bytes(data[:-1])
    with pytest.raises(ValueError, match=re.escape(file)):
        load(copy)


@pytest.mark.parametrize("name", READERS)
def test_a_missing_file_a_folder_that_is_none_and_a_newer_format(copy, name):
    load = reader(name)
    config = (copy / "config.json").read_text()
    (copy / "config.json").write_text(config.replace('"format": 1', '"format": 2'))
    bundle.seal(copy)
    with pytest.raises(ValueError, match=r"format 2.*update soda_jax"):
        load(copy)
    (copy / "params.safetensors").unlink()
    with pytest.raises(ValueError, match=r"params\.safetensors is missing"):
        load(copy)
    with pytest.raises(ValueError, match="no bundle"):
        load(copy.parent)


@pytest.mark.parametrize("name", READERS)
def test_images_of_the_wrong_size_type_and_range(name):
    encode = reader(name)(bundles.written("resnet18"))
    images = bundles.images((16, 16, 3), 2)
    for wrong in (images[0], images[:, :8], images[..., :1], images.transpose(0, 3, 1, 2)):
        with pytest.raises(ValueError, match=r"expected .*images \[b, 16, 16, 3\]"):
            encode(wrong)
    floats = images.astype(np.float32)
    for wrong in (images.astype(np.int32), floats, floats * np.float32(np.nan)):
        with pytest.raises(ValueError, match=r"expected .*uint8"):
            encode(wrong)


@pytest.mark.parametrize("name", READERS)
def test_the_orbax_copy_is_covered_too(copy, name):
    load = reader(name)
    files = [path for path in (copy / "orbax").rglob("*") if path.is_file() and path.stat().st_size]
    assert len(files) > 3
    for path in files:
        data = path.read_bytes()
        path.write_bytes(data[:-1] + bytes([data[-1] ^ 1]))
        with pytest.raises(ValueError, match=re.escape(path.relative_to(copy).as_posix())):
            load(copy)
        path.write_bytes(data)
    load(copy)


@pytest.mark.parametrize("dtype", bundle.DTYPES)
def test_orbax_reads_the_same_weights(dtype):
    folder = bundles.written("resnet18", dtype)
    found = ocp.load(folder / "orbax")
    expected = bundle.stored(bundles.encoder("resnet18").variables, dtype)
    tensors = flatten_dict(found, sep="/")
    assert tensors.keys() == expected.keys()
    for name, x in tensors.items():
        assert x.dtype == expected[name].dtype
        np.testing.assert_array_equal(x, expected[name])


# Alone ----------------------------------------------------------------------------------------------------------

ALONE = """
import sys
sys.path.insert(0, {folder!r})
import numpy as np
{module} = __import__("{module}")
encode = {module}.load({folder!r})
samples = dict(np.load({folder!r} + "/samples.npz"))
images = samples.pop("images")
if "torch" in "{module}":
    import torch
    found = {{k: x.detach().numpy() for k, x in encode.eval()(torch.from_numpy(images)).items()}}
else:
    found = encode(images)
for name, expected in samples.items():
    assert np.abs(found[name] - expected).max() < 1e-4 * np.abs(expected).max()
strangers = {{"jax", "flax", "soda_jax", "data", "experiments"}} & set(sys.modules)
assert not strangers, strangers
"""


@pytest.mark.parametrize("name", ("numpy", "onnx", "torch"))
def test_the_readers_in_a_bundle_need_nothing_of_the_package(name, tmp_path):
    reader(name)
    text = ALONE.format(folder=str(bundles.written("resnet18")), module=f"{name}_encoder")
    subprocess.run([sys.executable, "-I", "-c", text], cwd=tmp_path, check=True)


def test_sha256sum_reads_the_manifest():
    subprocess.run(
        ["sha256sum", "--check", "--strict", "--quiet", bundle.MANIFEST],
        cwd=bundles.written("resnet18"),
        check=True,
    )
