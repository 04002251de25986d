"""Every file of a checkpoint is covered by its hashes; what is damaged is named and passed over, never used."""

import shutil

import jax
import jax.numpy as jnp
import pytest
from etils import epath

from soda_jax.training import checkpoints
from soda_jax.training.checkpoints import CheckpointError, Checkpoints, DamagedError
from soda_jax.training.integrity import MANIFEST, damaged_file, is_whole, write_manifest

STATE = {"w": jnp.arange(5.0), "deep": {"b": jnp.ones((2, 3))}}


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """Two checkpoints, of steps 1 and 2."""
    folder = tmp_path_factory.mktemp("written") / "checkpoints"
    with Checkpoints(folder, keep=5, metadata={}) as saved:
        for step in (1, 2):
            saved.save(step, jax.tree.map(lambda x, step=step: x * step, STATE), {"count": step})
    return folder


@pytest.fixture
def folder(written, tmp_path):
    """A copy of them, to be spoiled."""
    return epath.Path(shutil.copytree(written, tmp_path / "checkpoints"))


def files(folder):
    """Names of all files of the newest checkpoint."""
    top = folder / "2"
    return sorted(
        str(path.relative_to(top)) for path in epath.Path(top).glob("*") if path.is_file()
    ) + sorted(
        str(path.relative_to(top))
        for sub in ("*/*", "*/*/*", "*/*/*/*")
        for path in top.glob(sub)
        if path.is_file()
    )


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))


def cut(path):
    path.write_bytes(path.read_bytes()[:-1])


def remove(path):
    path.unlink()


SPOIL = {"a flipped byte": flip, "a cut file": cut, "a missing file": remove}


@pytest.mark.parametrize("how", SPOIL)
def test_damage_to_any_file_is_found_named_and_passed_over(how, written, tmp_path):
    names = files(epath.Path(written))
    assert len(names) > 8 and MANIFEST in names and any("ocdbt" in name for name in names)
    tried = 0
    for number, name in enumerate(names):
        copy = epath.Path(shutil.copytree(written, tmp_path / str(number)))
        path = copy / "2" / name
        if how != "a missing file" and not path.stat().length:
            continue  # nothing to flip in an empty file
        SPOIL[how](path)
        assert damaged_file(copy / "2") == path
        said = []
        assert checkpoints.newest_good(copy, said.append) == 1
        assert len(said) == 1 and "damaged" in said[0] and str(path) in said[0]
        tried += 1
    assert tried > 8


def test_an_undamaged_one_is_taken_without_a_word(folder):
    said = []
    assert checkpoints.newest_good(folder, said.append) == 2 and said == []
    checkpoints.verify(folder, 2)


def test_a_damaged_one_that_was_asked_for_is_an_error_that_names_the_file(folder):
    flip(folder / "2" / "state" / "manifest.ocdbt")
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), STATE)
    with pytest.raises(DamagedError, match=r"step 2 is damaged: .*manifest\.ocdbt .*another one of \[1\]"):
        checkpoints.load(folder, 2, abstract)
    assert checkpoints.load(folder, 1, abstract)["w"][2] == 2


def test_set_aside_it_is_kept_and_the_step_can_be_saved_again(folder):
    flip(folder / "2" / "state" / "manifest.ocdbt")
    assert checkpoints.newest_good(folder, lambda text: None, set_aside=True) == 1
    (aside,) = folder.glob("2.damaged-*")
    assert (aside / MANIFEST).exists() and checkpoints.steps(folder) == [1]
    with Checkpoints(folder, keep=5, metadata={}) as saved:
        assert saved.latest == 1
        saved.save(2, STATE, {})
    assert checkpoints.steps(folder) == [1, 2] and aside.exists()
    assert checkpoints.newest_good(folder, pytest.fail) == 2


def test_without_its_manifest_a_folder_is_no_checkpoint(folder):
    (folder / "2" / MANIFEST).unlink()
    assert checkpoints.steps(folder) == [1] and not is_whole(folder / "2")
    write_manifest(folder / "2")
    assert checkpoints.steps(folder) == [1, 2] and damaged_file(folder / "2") is None


def test_if_all_are_damaged_none_is_taken(folder):
    for step in "12":
        cut(folder / step / MANIFEST)
    said = []
    assert checkpoints.newest_good(folder, said.append) is None and len(said) == 2


def test_the_old_ones_go_only_after_the_new_one_is_whole(folder, monkeypatch):
    """A save that breaks off between orbax's end and the manifest costs nothing that was there."""

    def broken(path):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoints, "write_manifest", broken)
    told = []
    with Checkpoints(folder, keep=1, metadata={}, on_failure=lambda *words: told.append(words)) as saved:
        saved.save(3, STATE, {})
    assert checkpoints.steps(folder) == [1, 2]
    ((step, error),) = told
    assert step == 3 and isinstance(error, CheckpointError) and "no space left" in str(error)
