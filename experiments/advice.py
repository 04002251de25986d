"""What to change in a config whose training step does not fit into a device's memory."""

from experiments.job import Program
from soda_jax.training import tables
from soda_jax.training.chips import Chip

USABLE = 0.95  # of the memory: runtimes and programs want a little


def advice(program: Program, needed: int, chip: Chip) -> list[str]:
    """Flags that would make it fit, the gentlest first; `needed`: bytes of one device as it is.

    By proportion: the state scales with the mesh, all else with the images that a device holds at a time. So these are
    values to compile next, not promises.
    """
    c, room = program.config, USABLE * chip.memory
    whole, state = tables.state_bytes(program.abstract, program.shardings)
    rows = c.train.batch // (program.mesh.devices.size * program.accumulation)
    parts = fewest_parts(rows, needed - state, room - state)
    lines = []
    if parts:
        lines.append(
            f"--config.train.accumulation={program.config.train.accumulation * parts}: "
            f"{rows // parts} instead of {rows} images at a time on a device, the batch stays (BatchNorm sees less)"
        )
        lines.append(f"--config.train.batch={c.train.batch // parts}: a smaller batch; look at the rates too")
    if c.model.remat == "none":
        lines.append(
            "--config.model.remat=blocks: the denoiser's blocks are computed again, about a third more work"
        )
    shards = better_mesh(program, whole, state, room)
    if shards:
        lines.append(f"--config.mesh.fsdp={shards}: each device holds a smaller part of the state")
    if not lines:
        lines.append(
            "more devices, devices with more memory, or a smaller network (model.channels, model.dit_size)"
        )
    return lines


def fewest_parts(rows: int, work: float, room: float) -> int | None:
    """The smallest number of microbatches that divides the rows and brings the working memory into the room."""
    return next((n for n in range(2, rows + 1) if rows % n == 0 and work / n <= room), None)


def better_mesh(program: Program, whole: int, state: int, room: float) -> int | None:
    """The fewest parts of the state that leave half of the memory to the work; None if it has that already."""
    devices, fsdp = program.mesh.devices.size, program.mesh.shape["fsdp"]
    if state <= room / 2:
        return None
    larger = (n for n in range(fsdp + 1, devices + 1) if devices % n == 0)
    return next((n for n in larger if whole / n <= room / 2), None)
