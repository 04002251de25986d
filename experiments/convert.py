"""Makes a run of weights that others trained: `python -m experiments.convert --init=PATH --workdir=DIR`.

PATH is, as its contents tell, one of

    a folder of a diffusers U-Net (config.json and diffusion_pytorch_model.safetensors or .bin), of the layout of
        google/ddpm-cifar10-32; its config is experiments/configs/ddae_diffusers.py:PATH
    a file of DiT's public weights, such as DiT-XL-2-256x256.pt; ddae_dit_latents.py:PATH, or PATH,HEADS
    a file of ADM's public weights, such as 64x64_diffusion.pt; ddae_adm.py:PATH, or PATH,new or PATH,legacy

DIR becomes a DDAE run with one checkpoint, of step 0: experiments.probe (--grid), finetune, sample, noisy_classifier
and alignment read it, RepFusion learns from it, and experiments.train goes on from it with that config.

--config.KEY=VALUE   as for experiments.train: --config.data.name=fashion_mnist, --config.data.dir=..., ...
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import flags
from ml_collections import ConfigDict, config_flags

from experiments import cluster, runs, train, xla_flags
from experiments.configs import ddae_adm, ddae_diffusers, ddae_dit_latents
from experiments.initial_nets import net_in
from experiments.job import prepare
from experiments.origins import taken_for, with_taken
from experiments.probing import print_once
from soda_jax.parallel import processes
from soda_jax.training import checkpoints
from soda_jax.training.checkpoints import versions
from soda_jax.training.ledger import Ledger

CONFIGS = {"ddae_diffusers": ddae_diffusers.get_config, "ddae_dit_latents": ddae_dit_latents.get_config}
CONFIGS |= {"ddae_adm": ddae_adm.get_config}


def main(argv: Sequence[str] | None = None) -> int:
    """Returns the exit status."""
    arguments, more = _parser().parse_known_args(argv)
    xla_flags.set_up()

    def work() -> None:
        try:
            config = config_of(arguments.init, more)
        except (flags.Error, KeyError, AttributeError) as error:
            raise ValueError(runs.one_line(error)) from error
        convert(config, arguments.workdir)

    return cluster.carry_out(
        "experiments.convert", arguments, arguments.workdir, work, if_stopped="begins again"
    )


def config_of(init: str, overrides: Sequence[str]) -> ConfigDict:
    """That of the net, with these flags. flags.Error or KeyError for what is none."""
    values, config = flags.FlagValues(), CONFIGS[net_in(init).config](init)
    argv = ["convert", *overrides]
    config_flags.DEFINE_config_dict("config", config, flag_values=values, sys_argv=argv)
    if rest := values(argv)[1:]:
        raise flags.Error(f"unexpected arguments: {' '.join(rest)}")
    return config


def convert(config: ConfigDict, workdir: Path) -> None:
    """Writes the run. ValueError where there is one already, and what does not fit."""
    if found := checkpoints.steps(workdir / "checkpoints"):
        raise ValueError(
            f"--workdir={workdir} is a run already, with checkpoints {found}: give another folder"
        )
    job = prepare(config, workdir)
    taken = taken_for(job, 0, print_once, lambda phase, step: None)
    failures: list[str] = []
    with train.checkpoints_of(job, failures, print_once) as saved:
        state = with_taken(train.start_state(job, saved, 0), taken, job)
        if processes.is_main():
            runs.write_config(workdir, config, versions(), runs.data_info(job.dataset))
        saved.save(0, state, Ledger().saved())
    if failures:
        raise OSError(failures[-1])
    print_once(f"wrote {workdir}: probe it with python -m experiments.probe --workdir={workdir} --grid")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m experiments.convert",
        description=__doc__,
        allow_abbrev=False,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--init", required=True, metavar="PATH", help="folder or file of the weights")
    parser.add_argument("--workdir", required=True, type=Path, metavar="DIR", help="folder of the run")
    cluster.add_arguments(parser)
    return parser


if __name__ == "__main__":
    sys.exit(main())
