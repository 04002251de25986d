"""Which objects, groups or cameras a data set keeps for the test split, where folders do not say it."""

import hashlib
import pathlib
from collections.abc import Sequence

from data.builders import folders
from data.errors import DataError

SPLITS = ("train", "val", "test")
DEFAULT_SHARE = 0.1
LIST = "test.txt"


def folders_by_split(root: pathlib.Path, kind: str, share: float | None) -> dict[str, list[pathlib.Path]]:
    """Split -> the folders of its objects or groups: no name is in two of them.

    In this order: root/{train,val,test}/<name>/; root/<name>/ with those that root/test.txt lists, one a line, in
    test; root/<name>/ with a share of them in test (see `hold_out`).

    Args:
        root: where they lie.
        kind: "object" or "group", for messages.
        share: --test_share, None where it was not given.

    Raises:
        DataError: no folders, an empty split, a name in two splits, a list of names that are not there, a share
            beside a list or folders that decide already.
    """
    try:
        return _by_split(root, kind, share)
    except OSError as error:
        raise folders.cannot_list(error) from error


def _by_split(root: pathlib.Path, kind: str, share: float | None) -> dict[str, list[pathlib.Path]]:
    places = folders.split_folders(root, kind, SPLITS)
    if places:
        refuse_share(share, f"{root / 'train'}/")
        found = {split: _members(place, kind) for split, place in places.items()}
        _check_disjoint(root, kind, found)
        return found
    members = _members(root, kind)
    names = [path.name for path in members]
    if (root / LIST).exists():
        refuse_share(share, str(root / LIST))
        held = _listed(root / LIST, names, kind)
    else:
        held = hold_out(names, share)
    return parted(members, names, held)


def refuse_share(share: float | None, decides: str) -> None:
    """Raises DataError for a --test_share that something in the folder contradicts."""
    if share is not None:
        raise DataError(
            f"--test_share={share:g}: {decides} decides already what test holds; leave the flag out"
        )


def hold_out(names: Sequence[str], share: float | None, least: int = 1) -> set[str]:
    """A share of the names, rounded: those whose SHA-256 is lowest, so that the order and other names hardly matter.

    At least `least` of them, and as many are left; none where that cannot be, or for a share of 0.
    """
    share = DEFAULT_SHARE if share is None else share
    if not share or len(names) < 2 * least:
        return set()
    count = min(max(round(share * len(names)), least), len(names) - least)
    return set(sorted(names, key=lambda name: hashlib.sha256(name.encode()).digest())[:count])


def parted(members: Sequence, names: Sequence[str], held: set[str]) -> dict[str, list]:
    """{"train": members whose name is not held, "test": the others}; no test where nothing is."""
    test = [member for member, name in zip(members, names, strict=True) if name in held]
    train = [member for member, name in zip(members, names, strict=True) if name not in held]
    return {"train": train, "test": test} if test else {"train": train}


def _members(place: pathlib.Path, kind: str) -> list[pathlib.Path]:
    found = folders.subfolders(place)
    stray = folders.direct_images(place)
    if stray:
        raise DataError(f"{stray[0]} lies beside the {kind} folders: put it in one of them, or remove it")
    if not found:
        raise DataError(f"no {kind} folders in {place}: expected one folder for each {kind}")
    for path in found:
        folders.check_text(path)
    return found


def _check_disjoint(root: pathlib.Path, kind: str, found: dict[str, list[pathlib.Path]]) -> None:
    owner: dict[str, str] = {}
    for split, members in found.items():
        for name in (path.name for path in members):
            if name in owner:
                raise DataError(
                    f"{root}: {kind} {name!r} is in {owner[name]}/ and in {split}/: leave it in one of them, or "
                    "rename one if they are different"
                )
            owner[name] = split


def _listed(path: pathlib.Path, names: Sequence[str], kind: str) -> set[str]:
    try:
        held = {line.strip().rstrip("/") for line in path.read_text(encoding="utf-8").splitlines()} - {""}
    except ValueError as error:
        raise DataError(f"{path} is not UTF-8 text: write one {kind} a line") from error
    unknown = sorted(held - set(names))
    if unknown:
        raise DataError(f"{path} lists {unknown[0]!r}, and there is no such {kind} folder: correct the line")
    if held == set(names):
        raise DataError(f"{path} lists every {kind}: leave some out for training")
    return held
