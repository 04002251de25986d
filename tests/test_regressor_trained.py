"""The regressor of a run that has none is trained, in this process, and trained on where the run has gone on."""

from experiments.regressor_run import regressor_of, trained
from experiments.runs import open_run
from soda_jax.training import checkpoints
from tests import posed_run


def test_it_is_trained_on_as_many_images_as_the_run_has_seen(tmp_path, capsys):
    workdir = posed_run.write(tmp_path / "run", steps=(1, 2))
    folder = trained(open_run(workdir, 1))
    assert folder == workdir / "regressor" and checkpoints.steps(folder / "checkpoints") == [1]
    assert "8 images, as many as the run has seen" in capsys.readouterr().out
    found = regressor_of(open_run(workdir, 2), None)
    assert found.step == 2 and "going on from step 1" in capsys.readouterr().out
    config = found.config
    assert (config.method, config.train.images, config.samples.every_images) == ("regressor", 16, 0)
    regressor_of(open_run(workdir), None)
    assert "training" not in capsys.readouterr().out
