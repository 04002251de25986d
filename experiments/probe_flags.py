"""The command line of experiments.probe, and what of a run's config it may change."""

from typing import Any

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import cluster, runs
from experiments.configs import default
from experiments.probe_tasks import ALWAYS

PLACE = ("tap", "level", "draws")  # of ddae: where features are read; its other keys made the net what it is


def overridable() -> ConfigDict:
    """The keys of the config that a probe may set; the rest is as it was trained."""
    whole = default.get_config()
    groups = {name: whole[name] for name in ("probe", "disentanglement")}
    place = {name: whole.ddae[name] for name in PLACE}
    return ConfigDict({**groups, "ddae": place, "data": {"dir": ""}})


def parse(argv: list[str]) -> tuple[flags.FlagValues, dict[str, Any]]:
    """The flags, and {"probe.knn_k": 5, ...}; flags.Error for what is unknown or missing."""
    values = flags.FlagValues()
    flags.DEFINE_string("workdir", None, "Folder of the run.", flag_values=values)
    flags.DEFINE_bool("help", False, "Show this and end.", short_name="h", flag_values=values)
    flags.DEFINE_integer("step", None, "Checkpoint (default: the newest).", flag_values=values)
    flags.DEFINE_bool(
        "follow", False, "Probe each new checkpoint until training has ended.", flag_values=values
    )
    flags.DEFINE_bool("grid", False, "Probe layers x noise levels.", flag_values=values)
    flags.DEFINE_list("levels", [], "Of --grid (default: the paper's).", flag_values=values)
    flags.DEFINE_list(
        "layers", [], "Of --grid (default: the way up, and the middle; of a DiT all).", flag_values=values
    )
    flags.DEFINE_string("select", "holdout", "Of --grid: holdout | test, as the paper.", flag_values=values)
    flags.DEFINE_list("tasks", list(ALWAYS), "What is measured, by commas.", flag_values=values)
    cluster.define_flags(values)
    flags.DEFINE_float("every", 10.0, "Seconds between looks with --follow.", 0.1, flag_values=values)
    rest = _read(values, argv)
    if rest:
        raise flags.Error(f"unexpected arguments: {' '.join(rest)}")
    if values["workdir"].value is None and not values["help"].value:
        raise flags.Error("--workdir=DIR is missing: the folder of a run of experiments.train")
    if values["follow"].value and values["step"].value is not None:
        raise flags.Error("--step and --follow exclude each other: leave one of them out")
    return values, config_flags.get_override_values(values["config"])


def _read(values: flags.FlagValues, argv: list[str]) -> list[str]:
    """Sets these flags and those of the config; returns what is none. flags.Error for an unknown key."""
    try:
        config_flags.DEFINE_config_dict("config", overridable(), flag_values=values, sys_argv=argv)
        return values(argv)[1:]
    except (KeyError, AttributeError) as error:
        raise flags.Error(
            f"--config has no such key: {runs.one_line(error)}; it has probe.*, disentanglement.*, "
            "ddae.tap, ddae.level, ddae.draws and data.dir"
        ) from error
