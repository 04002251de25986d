"""Where prepared data sets lie.

<data_dir>/<name>/<version>/     one TFDS data set in ArrayRecord format (features.json, shards, ...)
<data_dir>/.preparing-<name>-*/  a preparation under way, or what a killed one left (swept by the next one)
"""

import os
import pathlib

from data.errors import DataError

ENVIRONMENT_KEY = "SODA_JAX_DATA"
INFO_FILE = "dataset_info.json"


def default_dir() -> pathlib.Path:
    """`$SODA_JAX_DATA` if set, else the user's cache folder. Nothing is created."""
    chosen = os.environ.get(ENVIRONMENT_KEY)
    return pathlib.Path(chosen) if chosen else pathlib.Path.home() / ".cache" / "soda_jax" / "data"


def resolve(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """The folder that a `--data_dir` or `config.data.dir` means; "" and None mean the default."""
    return pathlib.Path(data_dir).expanduser() if data_dir else default_dir()


def versions(name: str, data_dir: str | os.PathLike | None) -> list[pathlib.Path]:
    """Folders of the prepared versions of one data set, oldest version first; empty if there is none."""
    found = [path.parent for path in (resolve(data_dir) / name).glob(f"*/{INFO_FILE}")]
    return sorted(found, key=_version_key)


def prepared_dir(name: str, data_dir: str | os.PathLike | None) -> pathlib.Path:
    """Folder of the newest prepared version of `name`.

    Raises:
        DataError: nothing of that name is prepared there.
    """
    found = versions(name, data_dir)
    if not found:
        raise DataError(
            f"no data set {name!r} under {resolve(data_dir)}: run `python -m data.prepare ...` first, "
            f"or set data.name / data.dir"
        )
    return found[-1]


def _version_key(path: pathlib.Path) -> tuple:
    """Sorts 1.10.0 after 1.9.0; folders that are not versions come first."""
    parts = path.name.split(".")
    return (all(part.isdigit() for part in parts), [int(p) if p.isdigit() else 0 for p in parts], path.name)
