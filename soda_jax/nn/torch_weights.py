"""Weights that others published, as named numpy arrays: files of `torch.save`, and .safetensors. No PyTorch needed.

    arrays = read("vgg16.pth")                      {"features.0.weight": float32 [64, 3, 3, 3], ...}

A file of `torch.save` is a pickle, which can run any program when it is read. Here it cannot: names other than those
of tensors and of plain containers are refused before anything is called. Both layouts are read, the zip of today and
the row of pickles from before PyTorch 1.6, in which most of the well-known weights still come.
"""

import collections
import io
import json
import math
import pickle
import zipfile
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np

Arrays = dict[str, np.ndarray]  # by name, in the types of the file

MAGIC = 0x1950A86A20F9469CFC6C  # of the first pickle of the older layout
STORAGES = {  # what a pickle calls the numbers of a tensor
    "DoubleStorage": np.float64,
    "FloatStorage": np.float32,
    "HalfStorage": np.float16,
    "BFloat16Storage": ml_dtypes.bfloat16,
    "LongStorage": np.int64,
    "IntStorage": np.int32,
    "ShortStorage": np.int16,
    "CharStorage": np.int8,
    "ByteStorage": np.uint8,
    "BoolStorage": np.bool_,
}
SAFE_DTYPES = {"F64": np.float64, "F32": np.float32, "F16": np.float16, "BF16": ml_dtypes.bfloat16}
SAFE_DTYPES |= {
    "I64": np.int64,
    "I32": np.int32,
    "I16": np.int16,
    "I8": np.int8,
    "U8": np.uint8,
    "BOOL": np.bool_,
}


def read(path: str | Path) -> Arrays:
    """Every tensor of a file; those in dictionaries within are called "outer.inner".

    Raises:
      FileNotFoundError: there is none.
      ValueError: it is damaged, holds other things than tensors and plain values, or is no such file.
    """
    path = Path(path)
    if not path.is_file():
        raise FileNotFoundError(f"{path}: there is no such file of weights")
    try:
        if path.suffix == ".safetensors":
            return _safetensors(path.read_bytes())
        with path.open("rb") as file:
            zipped = file.read(4) == b"PK\x03\x04"
            return dict(_flat((_zipped if zipped else _older)(file), ""))
    except (
        pickle.UnpicklingError,
        EOFError,
        KeyError,
        IndexError,
        TypeError,
        AttributeError,
        OSError,
    ) as error:
        raise ValueError(f"{path} cannot be read as weights ({_why(error)})") from error
    except (ValueError, zipfile.BadZipFile) as error:
        raise ValueError(f"{path}: {error}") from error


def take(arrays: Mapping[str, np.ndarray], name: str, shape: tuple[int, ...], path: str | Path) -> np.ndarray:
    """One of them, float32. ValueError that names the key and the file where it is missing or of another shape."""
    if name not in arrays:
        near = [key for key in arrays if key.rpartition(".")[2] == name.rpartition(".")[2]][:3]
        raise ValueError(
            f"{path} has no {name!r}, only others such as {near or list(arrays)[:3]}: give the file of that network"
        )
    found = arrays[name]
    if found.shape != shape:
        raise ValueError(f"{path}: {name!r} has shape {list(found.shape)}, expected {list(shape)}")
    return found.astype(np.float32)


def _why(error: Exception) -> str:
    return f"{type(error).__name__}: {error}".splitlines()[0]


def _flat(value: Any, name: str) -> Iterator[tuple[str, np.ndarray]]:
    """Names and arrays; numbers and texts beside them are passed over."""
    value = value.data if isinstance(value, _Parameter) else value
    if isinstance(value, _View):
        yield name, value.array()
    elif isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(inner, f"{name}.{key}" if name else str(key))


# Pickles that may name nothing but tensors -------------------------------------------------------------------


class _Fixed:
    """Made by a pickle, and not changed by it any more."""

    def __setstate__(self, state: Any) -> None:
        raise pickle.UnpicklingError("it changes a tensor after it was made, which no torch.save does")


class _Parameter:
    """What old files wrap tensors in; its state, whether it wants gradients and the like, is not needed."""

    def __init__(self, data: "_View", *rest: Any):
        self.data = data

    def __setstate__(self, state: Any) -> None:
        """Nothing of it is kept."""


class _Storage(_Fixed):
    """The numbers of one or more tensors; in the older layout they come after all tensors were named."""

    def __init__(self, kind: str, count: int):
        self.dtype, self.count = np.dtype(STORAGES[kind]), count
        self.numbers = np.zeros(0, self.dtype)

    @property
    def nbytes(self) -> int:
        """How many it is made of."""
        return self.count * self.dtype.itemsize

    def fill(self, data: bytes) -> None:
        """ValueError for another number of bytes."""
        if len(data) != self.nbytes:
            raise ValueError(f"it ends early, or is damaged: found {len(data)} of {self.nbytes} bytes")
        self.numbers = np.frombuffer(data, self.dtype)


class _View(_Fixed):
    """A tensor: some numbers of a storage."""

    def __init__(self, storage: _Storage, offset: int, size: tuple, stride: tuple, *rest: Any):
        self.storage, self.offset, self.size, self.stride = storage, offset, tuple(size), tuple(stride)

    def array(self) -> np.ndarray:
        """A copy. ValueError where it would reach beyond its storage."""
        numbers, item = self.storage.numbers, self.storage.dtype.itemsize
        last = self.offset + sum((n - 1) * step for n, step in zip(self.size, self.stride, strict=True))
        if min((self.offset, *self.size, *self.stride)) < 0 or (
            math.prod(self.size) and last >= len(numbers)
        ):
            raise ValueError(f"a tensor of shape {list(self.size)} reaches beyond its {len(numbers)} numbers")
        if not math.prod(self.size):
            return np.zeros(self.size, numbers.dtype)
        strides = [step * item for step in self.stride]
        return np.lib.stride_tricks.as_strided(numbers[self.offset :], self.size, strides).copy()


LEGAL: dict[tuple[str, str], Any] = {
    ("collections", "OrderedDict"): collections.OrderedDict,
    ("torch", "Size"): tuple,
    ("torch._utils", "_rebuild_tensor"): _View,
    ("torch._utils", "_rebuild_tensor_v2"): _View,
    ("torch._utils", "_rebuild_parameter"): _Parameter,
    ("torch.nn.parameter", "Parameter"): _Parameter,
    **{(module, name): name for module in ("torch", "torch.cuda") for name in STORAGES},
}


class _Unpickler(pickle.Unpickler):
    def __init__(self, file: Any, storage: Callable[[str, str, int], _Storage]):
        super().__init__(file, encoding="utf-8")
        self._storage = storage

    def find_class(self, module: str, name: str) -> Any:
        """Of LEGAL. UnpicklingError for anything else: it is never imported, let alone called."""
        if (module, name) not in LEGAL:
            raise pickle.UnpicklingError(
                f"it names {module}.{name}, and only tensors in plain dictionaries are read: save its state_dict()"
            )
        return LEGAL[module, name]

    def persistent_load(self, pid: Any) -> _Storage:
        """("storage", type, key, where, count, ...)"""
        return self._storage(pid[1], str(pid[2]), int(pid[4]))


def _zipped(file: Any) -> Any:
    """NAME/data.pkl, and NAME/data/KEY for each storage."""
    archive, kept = zipfile.ZipFile(file), {}
    names = archive.namelist()
    pickled = next((name for name in names if name.endswith("/data.pkl")), None)
    if pickled is None:
        raise ValueError("it is a zip, but has no data.pkl: expected a file of torch.save")
    root = pickled.removesuffix("data.pkl")
    if f"{root}constants.pkl" in names:
        raise ValueError("it holds a program (TorchScript), expected a state_dict: save its state_dict()")
    if f"{root}byteorder" in names and archive.read(f"{root}byteorder") != b"little":
        raise ValueError("its numbers are big-endian, which is not read")

    def storage(kind: str, key: str, count: int) -> _Storage:
        if key not in kept:
            kept[key] = _Storage(kind, count)
            kept[key].fill(archive.read(f"{root}data/{key}"))
        return kept[key]

    return _Unpickler(io.BytesIO(archive.read(pickled)), storage).load()


def _older(file: Any) -> Any:
    """Pickles of a magic number, a version, the machine, the tensors, the keys of storages; then their numbers."""
    kept: dict[str, _Storage] = {}

    def storage(kind: str, key: str, count: int) -> _Storage:
        return kept.setdefault(key, _Storage(kind, count))

    file.seek(0)
    try:
        magic = _Unpickler(file, storage).load()
    except Exception as error:
        raise ValueError("expected a file of torch.save, or a name that ends in .safetensors") from error
    if magic != MAGIC:
        raise ValueError("expected a file of torch.save, or a name that ends in .safetensors")
    _version, machine, found, keys = (_Unpickler(file, storage).load() for _ in range(4))
    if not machine.get("little_endian", True):
        raise ValueError("its numbers are big-endian, which is not read")
    for key in keys:
        if file.read(8) != kept[key].count.to_bytes(8, "little"):
            raise ValueError(
                "it ends early, or is damaged: a tensor has not as many numbers as was said of it"
            )
        kept[key].fill(file.read(kept[key].nbytes))
    return found


def _safetensors(data: bytes) -> Arrays:
    """A length, a JSON header, then the numbers."""
    start = 8 + int.from_bytes(data[:8], "little")
    found = {}
    for name, entry in json.loads(data[8:start]).items():
        if name != "__metadata__":
            low, high = (start + offset for offset in entry["data_offsets"])
            found[name] = np.frombuffer(data[low:high], SAFE_DTYPES[entry["dtype"]]).reshape(entry["shape"])
    return found
