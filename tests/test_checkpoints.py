"""What is saved comes back, on any mesh; what is not there is said in one line."""

import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from soda_jax.parallel import sharding
from soda_jax.parallel.mesh import make_mesh
from soda_jax.training import checkpoints
from soda_jax.training.checkpoints import CheckpointError, Checkpoints
from soda_jax.training.integrity import MANIFEST
from soda_jax.training.state import TrainState

GOLDEN = Path(__file__).parent / "golden"
META = {"config": {"seed": 0, "crop": [0.5, 1.0]}, "versions": checkpoints.versions()}


def state(step=3, scale=1.0):
    kernel = scale * jnp.arange(64.0).reshape(8, 8)
    params = {"encoder": {"kernel": kernel, "bias": jnp.ones(8)}}
    stats = {"encoder": {"mean": jnp.full(8, 2.0)}}
    return TrainState(
        step=jnp.int32(step),
        failed_step=jnp.int32(-1),
        params=params,
        batch_stats=stats,
        ema_params=jax.tree.map(lambda x: x + 0.5, params),
        ema_batch_stats=jax.tree.map(lambda x: x + 0.5, stats),
        opt_state=(jnp.int32(step), jax.tree.map(jnp.zeros_like, params)),
    )


def placed(tree, mesh, smallest=100):
    """Where the arrays shall lie."""
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), tree)
    return sharding.with_shardings(abstract, sharding.state_shardings(abstract, mesh, smallest=smallest))


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    jax.tree.map(np.testing.assert_array_equal, a, b)


@pytest.fixture
def folder(tmp_path):
    """Checkpoints of steps 3, 6 and 9, of which 2 were kept."""
    with Checkpoints(tmp_path / "checkpoints", keep=2, metadata=META) as saved:
        for step in (3, 6, 9):
            saved.save(step, state(step, scale=step), {"sums": {"loss": 0.1 + 0.2}, "count": step})
    return tmp_path / "checkpoints"


def test_the_last_are_kept_and_listed(folder):
    assert checkpoints.steps(folder) == [6, 9]
    assert checkpoints.steps(folder / "nowhere") == []
    with Checkpoints(folder, keep=2, metadata=META) as saved:
        assert saved.latest == 9


def test_state_and_metadata_come_back_bit_for_bit(folder):
    with Checkpoints(folder, keep=2, metadata={}) as saved:
        assert_same(saved.restore(6, placed(state(), make_mesh(1, 1))), state(6, scale=6))
        meta = saved.metadata(9)
    assert meta["config"] == META["config"] and meta["versions"]["jax"] == jax.__version__
    assert meta["progress"] == {"sums": {"loss": 0.1 + 0.2}, "count": 9}


def test_a_state_of_four_devices_is_read_on_two_and_on_one(tmp_path):
    many = placed(state(), make_mesh(1, 4))
    with Checkpoints(tmp_path, keep=1, metadata={}) as saved:
        saved.save(1, jax.tree.map(lambda x, a: jax.device_put(x, a.sharding), state(), many), {})
    for devices in (2, 1):
        abstract = placed(state(), make_mesh(1, devices))
        loaded = checkpoints.load(tmp_path, 1, abstract)
        assert_same(loaded, state())
        assert loaded.params["encoder"]["kernel"].sharding == abstract.params["encoder"]["kernel"].sharding


def test_only_the_averages_are_restored(folder):
    mesh = make_mesh(1, 1)
    wanted = {"params": placed(state().params, mesh), "batch_stats": placed(state().batch_stats, mesh)}
    found = checkpoints.restore_ema(folder, None, wanted)
    assert_same(found, {"params": state(9, 9).ema_params, "batch_stats": state().ema_batch_stats})
    assert_same(checkpoints.restore_ema(folder, 6, wanted)["params"], state(6, 6).ema_params)


def test_averages_of_which_some_are_not_asked_for_are_of_another_config_unless_a_part_is_meant(folder):
    mesh, part = make_mesh(1, 1), {"encoder": {"kernel": state().params["encoder"]["kernel"]}}
    wanted = {"params": placed(part, mesh), "batch_stats": placed(state().batch_stats, mesh)}
    with pytest.raises(
        CheckpointError, match=r"step 9 holds 1 parameters that .*'encoder'.*'bias'.*another config"
    ):
        checkpoints.restore_ema(folder, None, wanted)
    found = checkpoints.restore_ema(folder, None, wanted, partial=True)
    assert_same(found["params"], {"encoder": {"kernel": state(9, 9).ema_params["encoder"]["kernel"]}})


def test_donated_arrays_do_not_reach_into_a_save_under_way(tmp_path):
    large = {"w": jnp.zeros(2**20)}
    spoil = jax.jit(lambda s: {"w": s["w"] + 1}, donate_argnums=0)
    with Checkpoints(tmp_path, keep=1, metadata={}) as saved:
        saved.save(1, large, {})
        for _ in range(3):
            large = spoil(large)
    assert_same(
        checkpoints.load(tmp_path, 1, placed({"w": jnp.zeros(2**20)}, make_mesh(1, 1))),
        {"w": np.zeros(2**20)},
    )


def test_a_step_is_saved_once(folder):
    with Checkpoints(folder, keep=2, metadata={}) as saved:
        saved.save(9, state(0), {})
    assert checkpoints.metadata(folder, 9)["progress"]["count"] == 9


def test_a_process_that_does_not_see_the_manifest_yet_does_not_save_again(tmp_path):
    """With several processes it is process 0 that writes it; the others must not begin a save alone."""
    with Checkpoints(tmp_path, keep=2, metadata={}) as saved:
        saved.save(3, state(3), {})
        saved.wait()
        (tmp_path / "3" / MANIFEST).rename(tmp_path / "not yet")
        assert saved.latest is None
        saved.save(3, state(4), {})
        (tmp_path / "not yet").rename(tmp_path / "3" / MANIFEST)
    assert checkpoints.newest_good(tmp_path, pytest.fail) == 3


def test_what_is_not_there_is_said_with_what_is(folder, tmp_path):
    abstract = placed(state(), make_mesh(1, 1))
    with pytest.raises(CheckpointError, match=r"no checkpoint of step 7 in .*: found \[6, 9\]"):
        checkpoints.load(folder, 7, abstract)
    with pytest.raises(CheckpointError, match=r"no checkpoint in .*empty yet"):
        checkpoints.restore_ema(tmp_path / "empty", None, {"params": {}, "batch_stats": {}})


def test_a_checkpoint_of_other_arrays_is_an_error_in_words(folder):
    wrong = state().replace(params={"encoder": {"kernel": jnp.zeros((2, 2)), "other": jnp.zeros(1)}})
    with pytest.raises(CheckpointError, match="does not hold what the config describes"):
        checkpoints.load(folder, 9, placed(wrong, make_mesh(1, 1)))


def test_a_place_that_cannot_be_written_is_named(tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(CheckpointError, match=r"cannot keep checkpoints in .*file.*--workdir"):
        Checkpoints(tmp_path / "file", keep=1, metadata={})
    with pytest.raises(ValueError, match=r"checkpoint.keep must be 1 or more, found 0"):
        Checkpoints(tmp_path / "other", keep=0, metadata={})


def test_a_folder_that_vanishes_while_training_is_named(tmp_path):
    folder = tmp_path / "checkpoints"
    saved = Checkpoints(folder, keep=1, metadata={})
    shutil.rmtree(folder)
    folder.write_text("in the way")
    with pytest.raises(CheckpointError, match=r"the checkpoint of step 1 could not be written to .*points"):
        saved.save(1, state(), {})
        saved.wait()


@pytest.mark.parametrize(("version", "words"), [("0.1.0", ["it has no hashes"])])
def test_checkpoints_of_released_versions_are_read(version, words):
    """tests/golden/checkpoint_<version>/5, written by `Checkpoints(...).save(5, state(5, scale=5), {"count": 5})`.

    A release adds a folder of its own, written by its own code, and a line above; what is there stays as it is.
    """
    folder, said = GOLDEN / f"checkpoint_{version}", []
    assert checkpoints.newest_good(folder, said.append) == 5 and checkpoints.steps(folder) == [5]
    assert len(said) == len(words) and all(word in text for word, text in zip(words, said, strict=True))
    assert_same(checkpoints.load(folder, 5, placed(state(), make_mesh(1, 1))), state(5, scale=5))
    meta = checkpoints.metadata(folder, 5)
    assert meta["progress"] == {"count": 5} and meta["config"] == META["config"]
