"""The benchmark of samplers: what it compares, and its table."""

import re

import pytest

from experiments.benchmarks import samplers
from soda_jax.diffusion.sampler_steps import Sampler
from soda_jax.diffusion.schedules import Schedule
from tests import small_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_run.write(tmp_path_factory.mktemp("run"), steps=(4,))


@pytest.mark.parametrize("calls", [1, 2, 5, 10, 50])
def test_no_sampler_gets_more_calls_than_the_others(calls):
    for kind in samplers.KINDS:
        own = Sampler(kind=kind, steps=samplers.steps_for(kind, calls)).calls(Schedule())
        assert max(calls - 1, 1) <= own <= max(calls, 1)


def test_the_table_of_a_run(workdir, capsys):
    """With two calls the first and the last step of 2M are DDIM's; DDPM's are not."""
    assert samplers.main([f"--workdir={workdir}", "--count=3", "--calls=2"]) == 0
    said = capsys.readouterr().out
    assert "| calls | ddim | ddpm | heun | dpm++2m |" in said
    (row,) = re.findall(r"^\| 2 \|((?: -?\d+\.\d\d \(-?\d\.\d{3}\) \|){4})$", said, re.M)
    assert len(re.findall(r"dB \(.*\), \d+ s", said)) == 4
    ddim, ddpm, _, multistep = (float(cell.split()[0]) for cell in row.split("|")[:4])
    assert multistep == pytest.approx(ddim, abs=0.021)
    assert abs(ddpm - ddim) >= 0.01


def test_a_run_without_a_checkpoint(tmp_path, capsys):
    small_run.write(tmp_path, steps=())
    assert samplers.main([f"--workdir={tmp_path}"]) == 1
    assert "no checkpoint yet" in capsys.readouterr().err
