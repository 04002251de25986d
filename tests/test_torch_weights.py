"""Files of weights: every layout gives back what was saved, runs nothing, and says what is wrong with it."""

import io
import pickle
import zipfile

import ml_dtypes
import numpy as np
import pytest
import safetensors.numpy

from soda_jax.nn.torch_weights import MAGIC, read, take

ARRAYS = {
    "a.weight": np.arange(6, dtype=np.float32).reshape(2, 3),
    "half": np.array([1.5, -2], np.float16),
    "brain": np.array([1.5, -2], ml_dtypes.bfloat16),
    "count": np.array(7, np.int64),
    "none": np.zeros((0, 3), np.float32),
    "mask": np.array([True, False]),
}


def check(found, expected):
    assert found.keys() == expected.keys()
    for name, array in expected.items():
        assert found[name].dtype == array.dtype and found[name].shape == array.shape
        np.testing.assert_array_equal(found[name], array)


def test_safetensors(tmp_path):
    path = tmp_path / "x.safetensors"
    safetensors.numpy.save_file(ARRAYS, path, {"format": "pt"})
    check(read(path), ARRAYS)


@pytest.fixture(params=[True, False], ids=["zip", "older"])
def saved(request, tmp_path):
    """Whatever PyTorch saves, in both layouts."""
    torch = pytest.importorskip("torch")

    def save(value):
        path = tmp_path / "x.pth"
        torch.save(value, path, _use_new_zipfile_serialization=request.param)
        return path

    return save


def tensors(torch):
    return {
        name: torch.from_numpy(x.astype(np.float32)).bfloat16() if name == "brain" else torch.from_numpy(x)
        for name, x in ARRAYS.items()
    }


def test_what_pytorch_saves(saved):
    torch = pytest.importorskip("torch")
    check(read(saved(tensors(torch))), ARRAYS)


def test_views_share_numbers_and_dictionaries_lie_within_each_other(saved):
    torch = pytest.importorskip("torch")
    base = torch.arange(24.0).reshape(4, 6)
    value = {"ema": {"t": base.t()[1:4], "every_second": base[::2, 3:]}, "step": 5, "name": "x", "args": [1]}
    value["p"] = torch.nn.Parameter(base[0])
    table = np.arange(24, dtype=np.float32).reshape(4, 6)
    check(read(saved(value)), {"ema.t": table.T[1:4], "ema.every_second": table[::2, 3:], "p": table[0]})


class OldParameter:
    """As PyTorch pickled parameters long ago."""

    def __init__(self, data):
        self.data = data

    def __reduce__(self):
        import torch

        return torch.nn.Parameter, (self.data,), (True, False, {})


def test_parameters_of_old_files(saved):
    torch = pytest.importorskip("torch")
    check(read(saved({"w": OldParameter(torch.ones(2, 3))})), {"w": np.ones((2, 3), np.float32)})


def test_a_whole_module_is_refused(saved):
    torch = pytest.importorskip("torch")
    with pytest.raises(ValueError, match=r"x\.pth.*names torch\.nn.*: save its state_dict\(\)"):
        read(saved(torch.nn.Linear(2, 2)))


def test_a_cut_file_is_no_file(saved):
    torch = pytest.importorskip("torch")
    path = saved(tensors(torch))
    whole = path.read_bytes()
    for share in (0.1, 0.5, 0.9, 0.999):
        path.write_bytes(whole[: int(share * len(whole))])
        with pytest.raises(ValueError, match=r"x\.pth"):
            read(path)


class Call:
    """A pickle that does something when it is read."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return io.open, (self.path, "w")


def zipped(path, pickled, **files):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("x/data.pkl", pickled)
        for name, data in files.items():
            archive.writestr(f"x/{name}", data)


@pytest.mark.parametrize("zip_it", [True, False])
def test_nothing_is_called(tmp_path, zip_it):
    path, trace = tmp_path / "x.pth", tmp_path / "trace"
    harmful = pickle.dumps({"a": Call(str(trace))}, protocol=2)
    if zip_it:
        zipped(path, harmful)
    else:
        path.write_bytes(pickle.dumps(MAGIC, 2) + pickle.dumps(1001, 2) + pickle.dumps({}, 2) + harmful)
    with pytest.raises(ValueError, match=r"it names \w+\.open"):
        read(path)
    assert not trace.exists()
    pickle.loads(harmful)["a"].close()  # it would have
    assert trace.exists()


@pytest.mark.parametrize(
    ("offset", "size", "stride"), [(0, 5, 1), (-1, 2, 1), (3, 2, 1), (3, 3, -1), (0, 3, 2)]
)
def test_no_tensor_reaches_beyond_its_numbers(tmp_path, offset, size, stride):
    from soda_jax.nn.torch_weights import _Storage, _View

    storage = _Storage("FloatStorage", 4)
    storage.fill(np.arange(4, dtype=np.float32).tobytes())
    np.testing.assert_array_equal(_View(storage, 1, (2,), (2,)).array(), [1, 3])
    with pytest.raises(ValueError, match="reaches beyond its 4 numbers"):
        _View(storage, offset, (size,), (stride,)).array()


@pytest.mark.parametrize(
    ("write", "words"),
    [
        (lambda path: path.write_bytes(b"<html>not found</html>"), r"expected a file of torch\.save"),
        (lambda path: path.write_bytes(pickle.dumps({"a": 1})), r"expected a file of torch\.save"),
        (lambda path: zipped(path, b"", **{"constants.pkl": b""}), r"a program \(TorchScript\)"),
        (lambda path: zipped(path, pickle.dumps({}), byteorder=b"big"), "big-endian"),
        (lambda path: zipfile.ZipFile(path, "w").writestr("x", "y"), r"x\.pth"),
    ],
)
def test_what_is_no_file_of_weights(tmp_path, write, words):
    path = tmp_path / "x.pth"
    write(path)
    with pytest.raises(ValueError, match=words):
        read(path)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"x\.pth: there is no such file of weights"):
        read(tmp_path / "x.pth")
    (tmp_path / "x.safetensors").write_bytes(b"\x10\0\0\0\0\0\0\0not json")
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        read(tmp_path / "x.safetensors")


def test_taking_one_by_its_name_and_shape():
    found = take(ARRAYS, "half", (2,), "x.pth")
    assert found.dtype == np.float32 and found.tolist() == [1.5, -2]
    with pytest.raises(ValueError, match=r"x\.pth has no 'b\.weight', only others such as \['a\.weight'\]"):
        take(ARRAYS, "b.weight", (2, 3), "x.pth")
    with pytest.raises(ValueError, match=r"x\.pth: 'half' has shape \[2\], expected \[3\]"):
        take(ARRAYS, "half", (3,), "x.pth")
