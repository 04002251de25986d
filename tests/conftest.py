"""Eight simulated CPU devices for every test; rank promotion raises; absl flags count as parsed.

Tests compile much and compute little, so XLA is told not to optimise: that more than halves their time.
The mains' own flags are set here too, before the backend starts: a test that calls a main would otherwise add
them for the processes that later tests start, which would then compute other bits than this one.
Speed is measured in experiments/benchmarks, never here.
"""

import atexit
import gc
import os
import shutil
import tempfile
import time
from importlib.metadata import version

import jax
import pytest
from absl import flags

from experiments import xla_flags

FLAGS = "--xla_backend_optimization_level=0"
if version("jaxlib").startswith("0.10."):
    # element-wise loops not by way of MLIR: a fifth less time to compile, half the memory; later ones have no choice
    FLAGS += " --xla_cpu_use_fusion_emitters=false"
os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {FLAGS}".strip()
xla_flags.set_up()
# also where libtpu is installed or a GPU is there; processes that tests start inherit it
os.environ["JAX_PLATFORMS"] = "cpu"
jax.config.update("jax_platforms", "cpu")
jax.config.update("jax_num_cpu_devices", 8)
# One folder of programs for all tests of a run, in whichever process: many of them train the same small job.
if "SODA_JAX_TEST_PROGRAMS" not in os.environ:
    os.environ["SODA_JAX_TEST_PROGRAMS"] = tempfile.mkdtemp(prefix="soda_jax_programs_")
    atexit.register(shutil.rmtree, os.environ["SODA_JAX_TEST_PROGRAMS"], ignore_errors=True)
os.environ["JAX_COMPILATION_CACHE_DIR"] = os.environ["SODA_JAX_TEST_PROGRAMS"]
jax.config.update("jax_compilation_cache_dir", os.environ["SODA_JAX_TEST_PROGRAMS"])
jax.config.update("jax_numpy_rank_promotion", "raise")
flags.FLAGS.mark_as_parsed()
BEGUN = time.monotonic()
# Tracing makes millions of small objects that live: looking through all of them for cycles, as often as Python does
# by default, takes a sixth of the time.
gc.freeze()
gc.set_threshold(200_000, 20, 20)

# Files of `pytest -m fast`: a minute that meets every library, for trying another Python or JAX.
FAST = {
    "attention",
    "augment",
    "checkpoints",
    "chips",
    "conv",
    "draws",
    "editing",
    "embed",
    "evaluation_batches",
    "figures",
    "intervals",
    "ledger",
    "loop",
    "mesh",
    "metrics",
    "modulation",
    "nearest_neighbours",
    "norm",
    "optimizer",
    "page",
    "pipeline",
    "pod_table",
    "process",
    "roofline",
    "samplers",
    "schedules",
    "signals",
    "sources",
    "style",
    "tables",
    "timesteps",
    "views",
    "views3d_solids",
}


# Files of `pytest -m slow`, left out otherwise: real processes, kills, compilers of other machines, many programs.
SLOW = {
    "ahead",
    "compile_tpu",
    "crash",
    "devices",
    "finetune",
    "hooks_sharded",
    "images",
    "methods_trained",
    "posed_run",
    "probe_grid",
    "processes",
    "regressor_trained",
    "repfusion",
    "resume",
    "step_collectives",
    "topology",
    "train_sharded",
    "unconditional",
}

# Files of `pytest -m rare`, for which .ci/run has no time: whole jobs of parts that change seldom. Single tests of
# other files are marked so themselves.
RARE = {
    "convert",
    "convert_adm",
    "convert_dit",
    "dense",
    "edit_modes",
    "encode_latents",
    "fashion_head",
    "killed_jobs",
    "noisy_classifier_trained",
    "resume_random",
}

# Files that take longest, begun first: a file is one process's, and the last to begin would keep the others waiting.
DEAREST = ["crash", "processes", "topology", "resume_random", "killed_jobs", "fashion_head", "posed_run"]
DEAREST += [
    "compile_tpu",
    "train_main",
    "resume",
    "devices",
    "step_collectives",
    "export_readers",
    "novel_views",
]


def pytest_addoption(parser):
    """--minutes, for a machine of unknown speed that has a limit of its own."""
    said = "tests that would begin after so many minutes are skipped, and said to be (default: none)"
    parser.addoption("--minutes", type=float, default=float("inf"), help=said)


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup(item):
    """Skips what --minutes leave no time for."""
    if time.monotonic() > BEGUN + 60 * item.config.getoption("--minutes"):
        pytest.skip(f"no time left of --minutes: {item.path.name}")


def pytest_collection_modifyitems(items):
    """Marks the tests of FAST, of SLOW and of RARE; brings those of DEAREST to the front."""
    for item in items:
        name = item.path.stem.removeprefix("test_")
        if name in FAST:
            item.add_marker(pytest.mark.fast)
        if name in RARE:
            item.add_marker(pytest.mark.rare)
        if name in SLOW and not item.get_closest_marker("rare"):
            item.add_marker(pytest.mark.slow)
    place = {name: number for number, name in enumerate(DEAREST)}
    items.sort(key=lambda item: place.get(item.path.stem.removeprefix("test_"), len(place)))


@pytest.fixture
def key():
    """A typed root key, the same in every test."""
    return jax.random.key(0)
