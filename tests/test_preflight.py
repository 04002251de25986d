"""Processes that are about to run different things are told apart, and nothing is run."""

import pytest

from experiments import cluster
from soda_jax.parallel.preflight import check_alike, gathered, odd_ones_out
from tests import launched, small_job

FACTS = {"code": "abc", "config.seed": "0"}


def test_one_process_agrees_with_itself():
    check_alike(FACTS)
    assert gathered({"käse": "ü"}) == [{"käse": "ü"}]
    assert odd_ones_out([FACTS]) is None and odd_ones_out([FACTS] * 4) is None


def test_the_odd_one_out_is_named_with_what_it_has():
    text = odd_ones_out([FACTS, FACTS, FACTS | {"config.seed": "1"}, FACTS])
    assert "process 2: config.seed is 1 (others: 0)" in text
    assert "process 0" not in text and "code" not in text


def test_of_two_it_is_the_second_and_a_fact_that_one_lacks_counts():
    text = odd_ones_out([FACTS, {"code": "abc"}])
    assert "process 1: config.seed is (none) (others: 0)" in text


def test_a_long_value_is_cut():
    assert len(odd_ones_out([FACTS, FACTS | {"code": "x" * 5000}])) < 600


def test_the_facts_of_a_job(tmp_path):
    facts = cluster.facts(small_job.job(tmp_path))
    assert facts["config.optimizer.learning_rate"] == "0.01" and facts["library jax"]
    assert "config.data.dir" not in facts, "hosts may keep their data in different places"
    assert facts["devices"].startswith("8 x")
    other = cluster.facts(small_job.job(tmp_path / "other", {"seed": 5}))
    assert {name for name in facts if facts[name] != other[name]} == {"config.seed"}


def test_the_hash_of_the_code_changes_with_the_code(tmp_path):
    for name in ("soda_jax", "data", "experiments"):
        (tmp_path / name).mkdir()
    file = tmp_path / "data" / "x.py"
    file.write_text("a = 1\n")
    before = cluster.code_hash(tmp_path)
    file.write_text("a = 2\n")
    assert cluster.code_hash(tmp_path) != before
    file.write_text("a = 1\n")
    assert cluster.code_hash(tmp_path) == before


def test_two_real_processes_with_different_configs_refuse_and_name_the_key(tmp_path):
    where = [f"--coordinator=127.0.0.1:{launched.free_port()}", "--processes=2"]
    runs = [
        launched.start_alone(
            [*launched.training(tmp_path), *where, f"--process={i}", f"--config.ema.decay=0.9{i}"]
        )
        for i in range(2)
    ]
    for number, (status, output) in enumerate(map(launched.finished, runs)):
        assert status == 1, output
        assert f"process {number}: error: the processes are about to run different things" in output
        assert "process 1: config.ema.decay is 0.91 (others: 0.9)" in output
    assert "config.ema.decay" in (tmp_path / "errors.log").read_text()
    assert not (tmp_path / "config.json").exists() and not (tmp_path / "metrics.jsonl").exists()


@pytest.mark.parametrize("devices", [1, 2])
def test_a_mesh_that_leaves_a_process_out_is_refused(devices, tmp_path):
    run = launched.start(launched.training(tmp_path, "--config.mesh.data=1"), processes=2, devices=devices)
    status, output = launched.finished(run)
    assert status == 1 and "must take part: set mesh.data=-1" in output
