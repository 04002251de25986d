"""The one-line answer to a data set that is not there: what is, and how to make the one asked for."""

import difflib
from collections.abc import Sequence
from pathlib import Path

import tensorflow_datasets as tfds

from data.errors import DataError

OURS = {  # what `python -m data.prepare` makes, and the rest of its command line
    "views3d": "views3d",
    "fashion_mnist": "fashion_mnist --source=DIR",
    "folder": "folder --source=DIR",
    "posed_folder": "posed_folder --source=DIR",
    "grouped_folder": "grouped_folder --source=DIR",
    "celebamask_hq": "celebamask_hq --source=DIR",
    "wflw": "wflw --source=DIR",
}


def data_set_is_missing(name: str, roots: Sequence[Path]) -> DataError:
    """The exception to raise; `roots` are the folders that were searched."""
    there = sorted({found for root in roots for found in prepared(root)})
    advice = _advice(name.partition(":")[0], there, roots[0])
    return DataError(
        f"data set {name!r} (config.data.name) is not prepared in {' or '.join(map(str, roots))} "
        f"(config.data.dir), there: {', '.join(there) or 'none'}; {advice}"
    )


def prepared(root: Path) -> list[str]:
    """The names of the data sets below `root`, as `config.data.name` takes them."""
    infos = [info for depth in ("*/*", "*/*/*") for info in root.glob(f"{depth}/dataset_info.json")]
    versions = [info.parent for info in infos if tfds.core.Version.is_valid(info.parent.name)]
    names = {version.parent.relative_to(root).as_posix() for version in versions}
    return sorted(name for name in names if not name.startswith("."))  # a hidden folder is half prepared


def _advice(name: str, there: Sequence[str], root: Path) -> str:
    configs = [other for other in there if other.startswith(f"{name}/")]
    if configs:
        return f"choose one of its configs: {', '.join(configs)}"
    if name in OURS:
        return f"prepare it: python -m data.prepare {OURS[name]} --data_dir={root}"
    known = tfds.list_builders(with_community_datasets=False)
    if name.partition("/")[0] in known:
        command = f"tfds build {name} --file_format=array_record --data_dir={root}"
        return f"prepare it in an environment that has TensorFlow: {command}"
    return _guess(name, [*there, *OURS, *known], root)


def _guess(name: str, names: Sequence[str], root: Path) -> str:
    close = difflib.get_close_matches(name, names, n=1)
    hint = f"did you mean {close[0]!r}? " if close else ""
    command = f"python -m data.prepare folder --source=DIR --name={name} --data_dir={root}"
    return f"{hint}if it is a folder of images: {command}"
