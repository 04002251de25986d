"""The benchmark of samplers: what it compares, and its table."""

import re

import pytest

from experiments.benchmarks import samplers
from experiments.runs import open_run
from soda_jax.diffusion.samplers import Sampler
from tests import small_run


@pytest.fixture(scope="module")
def workdir(tmp_path_factory):
    return small_run.write(tmp_path_factory.mktemp("run"), steps=(4,))


@pytest.mark.parametrize("calls", [1, 2, 5, 10, 50])
def test_no_sampler_gets_more_calls_than_the_others(calls):
    for kind in samplers.KINDS:
        own = Sampler(kind=kind, steps=samplers.steps_for(kind, calls)).calls
        assert max(calls - 1, 1) <= own <= max(calls, 1)


def test_the_table_of_a_run(workdir, capsys):
    assert samplers.main([f"--workdir={workdir}", "--count=3", "--calls=2,4"]) == 0
    said = capsys.readouterr().out
    assert "| calls | ddim | ddpm | heun | dpm++2m |" in said
    rows = re.findall(r"^\| (\d+) \|((?: -?\d+\.\d\d \(-?\d\.\d{3}\) \|){4})$", said, re.M)
    assert [row[0] for row in rows] == ["2", "4"]
    assert len(re.findall(r"dB \(.*\), \d+ s", said)) == 8


def test_two_calls_of_2m_are_those_of_ddim(workdir):
    """Its first and its last step are DDIM's."""
    found = samplers.measure(open_run(workdir), [2], 3)
    assert found["dpm++2m", 2] == pytest.approx(found["ddim", 2], abs=0.02)
    assert abs(found["ddpm", 2][0] - found["ddim", 2][0]) > 1e-3


def test_a_run_without_a_checkpoint(tmp_path, capsys):
    small_run.write(tmp_path, steps=())
    assert samplers.main([f"--workdir={tmp_path}"]) == 1
    assert "no checkpoint yet" in capsys.readouterr().err
