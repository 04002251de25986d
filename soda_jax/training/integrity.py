"""Content hashes of a checkpoint: the size and the SHA-256 of each of its files, in a manifest among them.

The manifest is written last, so a folder without one is not a whole checkpoint. It holds a hash of itself, so
every file of a checkpoint is covered: a flipped byte, a cut or a missing file is found wherever it is.
Checkpoints of version 0.1.0 have no manifest, and no promise of one in their metadata: they are taken as they are.
"""

import hashlib
import json
from collections.abc import Iterator, Mapping

from etils import epath

MANIFEST = "manifest.json"
PROMISE = {"hashed": True}  # in the metadata of a checkpoint that will have a manifest
Files = Mapping[str, list]  # name inside the folder -> [bytes, SHA-256 in hexadecimal]


def write_manifest(folder: epath.Path) -> None:
    """Reads every file of the folder once, and leaves the manifest, whole or not at all."""
    files = {name: _fingerprint(path) for name, path in _files(folder).items()}
    part = folder / f"{MANIFEST}.part"
    part.write_text(json.dumps({"files": files, "sha256": _hash_of(files)}, indent=1))
    part.replace(folder / MANIFEST)


def is_whole(folder: epath.Path) -> bool:
    """True once the manifest is there, or none was promised; says nothing of the contents."""
    return (folder / MANIFEST).exists() or is_of_old(folder)


def is_of_old(folder: epath.Path) -> bool:
    """True for a checkpoint of version 0.1.0: whole, as orbax left it, and without hashes."""
    try:
        metadata = json.loads((folder / "_CHECKPOINT_METADATA").read_bytes())["custom_metadata"]
        return (
            not (folder / MANIFEST).exists()
            and "config" in metadata
            and not PROMISE.keys() <= metadata.keys()
        )
    except (OSError, ValueError, KeyError, TypeError):
        return False


def damaged_file(folder: epath.Path) -> epath.Path | None:
    """The first file that is missing, cut or changed; None if all is as it was written."""
    if is_of_old(folder):
        return None
    recorded = _recorded(folder)
    if recorded is None:
        return folder / MANIFEST
    for name, (size, digest) in recorded.items():
        path = folder / name
        if not path.exists() or [path.stat().length, _sha256(path)] != [size, digest]:
            return path
    return None


def _recorded(folder: epath.Path) -> Files | None:
    """What the manifest says; None if it is not there or is not as it was written."""
    try:
        record = json.loads((folder / MANIFEST).read_bytes())
        return record["files"] if record["sha256"] == _hash_of(record["files"]) else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _files(folder: epath.Path) -> dict[str, epath.Path]:
    """name inside the folder -> path, in order, the manifest left out."""
    found = {path.relative_to(folder).as_posix(): path for path in _walk(folder)}
    return {name: found[name] for name in sorted(found) if not name.startswith(MANIFEST)}


def _walk(folder: epath.Path) -> Iterator[epath.Path]:
    for path in folder.iterdir():
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _fingerprint(path: epath.Path) -> list:
    return [path.stat().length, _sha256(path)]


def _sha256(path: epath.Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _hash_of(files: Files) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()
