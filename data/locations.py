"""Where prepared data sets lie.

<data_dir>/<name>/<version>/     one TFDS data set in ArrayRecord format (features.json, shards, ...)
<data_dir>/.preparing-<name>-*/  a preparation under way, or what a killed one left (swept by the next one)
"""

import os
import pathlib

ENVIRONMENT_KEY = "SODA_JAX_DATA"


def default_dir() -> pathlib.Path:
    """`$SODA_JAX_DATA` if set, else the user's cache folder. Nothing is created."""
    chosen = os.environ.get(ENVIRONMENT_KEY)
    return (
        pathlib.Path(chosen).expanduser() if chosen else pathlib.Path.home() / ".cache" / "soda_jax" / "data"
    )


def resolve(data_dir: str | os.PathLike | None) -> pathlib.Path:
    """The folder that a `--data_dir` or `config.data.dir` means; "" and None mean the default."""
    return pathlib.Path(data_dir).expanduser() if data_dir else default_dir()
