"""The real TPU compiler, for a slice that is not there; skipped where it is not installed (extra tpu-aot)."""

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
CONFIG = "--config=tests/pod_config.py"
WARNINGS = [
    "-W",
    "error",
    "-W",
    "ignore:the load_module() method is deprecated:DeprecationWarning",
]  # as in setup.cfg


def command(*arguments):
    """The main in a process of its own, as a user starts it: `pytest` set XLA flags of CPUs for its own process."""
    environment = {
        name: value for name, value in os.environ.items() if name not in ("XLA_FLAGS", "JAX_PLATFORMS")
    }
    line = [sys.executable, *WARNINGS, "-m", "experiments.compile", CONFIG, *arguments]
    return subprocess.run(line, cwd=ROOT, env=environment, capture_output=True, text=True)


def needs_libtpu():
    if importlib.util.find_spec("libtpu") is None:
        pytest.skip("libtpu is not installed: pip install libtpu==0.0.42.1 (extra tpu-aot)")


def test_a_tiny_config_is_compiled_for_four_chips(tmp_path):
    needs_libtpu()
    out = tmp_path / "table.json"
    done = command("--topology=v5e:2x2", "--quick", f"--out={out}")
    assert done.returncode == 0, done.stderr[-3000:]
    found = json.loads(out.read_text())
    assert (found["topology"], found["devices"], found["chip"]) == ("v5e:2x2", 4, "v5e")
    assert (found["hbm_bytes"], found["fits"], found["estimate"]) == (16 * 2**30, True, False)
    assert found["state_bytes"] <= found["arguments_bytes"] < found["hbm_peak_bytes"] < found["hbm_bytes"]
    assert found["hlo_flops"] > found["model_flops"] > 0 and found["compile_seconds"] > 0
    assert {entry["devices"] for entry in found["collectives"]} == {4}
    assert 0.4 < found["collective_bytes"] / found["collective_bytes_least"] < 1.5
    assert "v5e:2x2: 4 devices" in done.stdout and "compiled in" in done.stdout
    assert "ESTIMATE" not in done.stdout


TOPOLOGIES = """
from experiments.ahead import topology
for name, slices in (("v4:2x2x2", 1), ("v5p:2x2x2", 1), ("v6e:4x4", 1), ("v5e:2x2", 2)):
    place = topology(name, slices)
    print(name, len(place.devices), len({(getattr(d, "slice_index", 0), *d.coords) for d in place.devices}))
"""


def test_slices_of_every_kind_have_one_device_a_chip():
    needs_libtpu()
    run = [sys.executable, "-c", TOPOLOGIES]
    done = subprocess.run(
        run, cwd=ROOT, capture_output=True, text=True, env=os.environ | {"JAX_PLATFORMS": "cpu"}
    )
    assert done.stdout.splitlines() == ["v4:2x2x2 8 8", "v5p:2x2x2 8 8", "v6e:4x4 16 16", "v5e:2x2 8 8"], (
        done.stderr
    )


def test_a_slice_that_no_tpu_has_is_one_line():
    needs_libtpu()
    done = command("--topology=v5e:3x5")
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("error: --topology=v5e:3x5: no such slice"), done.stderr[-2000:]


def test_gpus_are_estimated_without_the_tpu_compiler(tmp_path):
    out = tmp_path / "table.json"
    done = command("--topology=a100:2", f"--out={out}")
    assert done.returncode == 0, done.stderr[-3000:]
    assert "an ESTIMATE" in done.stdout and json.loads(out.read_text())["estimate"] is True


def test_an_unknown_topology_and_a_wrong_key_are_one_line():
    done = command("--topology=v9:2x2")
    assert done.returncode == 1 and "Traceback" not in done.stderr
    assert done.stderr.strip().splitlines()[-1].startswith("error: no chip is called 'v9'")
    done = command("--topology=h100:2", "--config.train.batch=7")
    assert done.returncode == 1 and "error: train.batch=7 must be a multiple of 2" in done.stderr
