"""What a DDAE begins with that others trained, as --init=PATH names it; what is in PATH is told from its contents.

diffusers   a folder with a config.json, or a file of weights beside one      diffusers_nets.py
dit         a file with the names of DiT's public weights                     dit_nets.py
adm         a file with the names of ADM's public weights                     adm_nets.py
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import jax
import numpy as np

from experiments import adm_nets, diffusers_nets, dit_nets, runs
from experiments.job import Job
from experiments.probing import write_json
from soda_jax.nn import adm_weights, dit_weights
from soda_jax.nn.torch_weights import read
from soda_jax.parallel.preflight import check_alike
from soda_jax.types import Tree

FREE = ("model.dropout", "diffusion.loss_in")  # keys that are ours to choose, whatever net it is
Say = Callable[[str], None]


@dataclass(frozen=True, kw_only=True)
class Net:
    """One of them.

    config: the file of experiments/configs that makes a config of it. keys: what that must say. params: reads them.
    """

    weights: Path
    config: str
    keys: Mapping[str, Any]
    params: Callable[[], Tree]


def net_in(init: str, classes: int = 0) -> Net:
    """What PATH, or "PATH,MORE", holds; MORE: what a file does not tell, of a DiT its heads, of an ADM their order.

    classes: ddae.classes of the run, which of these nets a DiT alone can have.
    Raises ValueError, with some of its names, for weights of no known net, and what reading its files raises.
    """
    name, more = parsed(init)
    path = Path(name)
    if not path.is_file() or (path.parent / "config.json").is_file():
        return of_diffusers(diffusers_nets.Folder.of(name))
    state = read(path)
    if dit_weights.PATCHES in state:
        dit = dit_weights.network(state, int(more) if more.isdecimal() else None, name)
        params = partial(dit_nets.params_of, dit, state, name, classes)
        return Net(weights=path, config="ddae_dit_latents", keys=dit_nets.keys_of(dit, state), params=params)
    if adm_weights.FIRST in state:
        adm = adm_weights.network(state, name)
        params = partial(adm_nets.params_of, adm, state, more or None, name)
        return Net(weights=path, config="ddae_adm", keys=adm_nets.keys_of(adm), params=params)
    raise ValueError(
        f"--init={init} holds {', '.join(map(repr, list(state)[:3])) or 'nothing'}: expected the weights of a DiT "
        f"({dit_weights.PATCHES!r}, ...) or an ADM ({adm_weights.FIRST!r}, ...), or a file of diffusers with its "
        "config.json beside it"
    )


def parsed(argument: str) -> tuple[str, str]:
    """The two of "PATH,MORE"; a path may have commas of its own."""
    path, _, more = argument.rpartition(",")
    known = more.isdecimal() or more in adm_weights.ORDERS
    return (path, more) if path and known else (argument, "")


def of_diffusers(folder: diffusers_nets.Folder) -> Net:
    """A U-Net."""
    keys, params = diffusers_nets.keys_of(folder), partial(diffusers_nets.params_of, folder)
    return Net(weights=folder.weights, config="ddae_diffusers", keys=keys, params=params)


def initial_net(job: Job, say: Say) -> Tree | None:
    """What a DDAE with ddae.init begins with, on the host; None without. init.json says what it was.

    Raises ValueError, naming what does not fit, of the config or of the weights, and FileNotFoundError.
    """
    c = job.config
    if not c.ddae.init:
        return None
    net = net_in(c.ddae.init, c.ddae.classes)
    check_config(c.ddae.init, net, dict(runs.flat(c.to_dict())))
    params = jax.tree.map(lambda x: np.asarray(x, np.float32), net.params())
    check_weights(net.weights, job.abstract.params["denoiser"], params)
    about = {"init": str(net.weights), "net": runs.fingerprint(params)}
    check_alike({"the initial net": json.dumps(about)})
    say(f"the net begins as that of {net.weights}")
    write_json(job.workdir / "init.json", about)
    return {"params": {"denoiser": params}}


def check_config(init: str, net: Net, found: Mapping[str, Any]) -> None:
    """ValueError, with the flags to set, where the config is not that of the net."""
    apart = [
        f"--config.{key}={value!r}"
        for key, value in net.keys.items()
        if found[key] != value and key not in FREE
    ]
    if apart:
        raise ValueError(
            f"the config is not that of the net in --init={init}: set {' '.join(apart)}, or take "
            f"--config=experiments/configs/{net.config}.py:{init}"
        )


def check_weights(path: Path, needed: Tree, params: Tree) -> None:
    """ValueError that names what is missing, what is too much, and what has another shape."""

    def shapes(tree: Tree) -> dict[str, tuple[int, ...]]:
        leaves = jax.tree.leaves_with_path(tree)
        return {jax.tree_util.keystr(name, simple=True, separator="/"): tuple(x.shape) for name, x in leaves}

    ours, theirs = shapes(needed), shapes(params)
    words = [f"lack {name} {list(ours[name])}" for name in sorted(ours.keys() - theirs.keys())]
    words += [f"hold {name}, which the config has not" for name in sorted(theirs.keys() - ours.keys())]
    both = sorted(ours.keys() & theirs.keys())
    words += [f"have {n} as {list(theirs[n])}, not {list(ours[n])}" for n in both if ours[n] != theirs[n]]
    if words:
        more = f", and {len(words) - 3} more" if len(words) > 3 else ""
        raise ValueError(f"{path} does not fit its config: the weights {'; '.join(words[:3])}{more}")
