"""A run folder with plausible contents, written without training: what the report reads."""

import json
from pathlib import Path

import numpy as np

from experiments.configs import default
from experiments.runs import plain
from soda_jax.report.figures import save_grid, save_strip

LABELS = {"shape": 6, "object_hue": 8, "floor_hue": 8, "wall_hue": 8, "size": 4, "yaw": 8}
SECTIONS = 13
BATCH = 32

CHANGES = {"seed": 3, "model.dropout": 0.0, "train.images": 24000, "train.batch": BATCH}


def config() -> dict:
    """The default config with a few keys changed, as JSON keeps it."""
    changed = default.get_config()
    changed.update_from_flattened_dict(CHANGES)
    return plain(changed)


def write_run(folder: Path, *, steps=750, probes=(250, 500, 750), pictures=True, monitor=True) -> Path:
    """The whole folder; leave parts out to get a young run."""
    folder.mkdir(parents=True, exist_ok=True)
    about = {
        "config": config(),
        "data_info": {"image_shape": [64, 64, 3], "labels": LABELS, "sizes": {"train": 4096, "test": 512}},
        "versions": {"jax": "0.10.2", "flax": "0.12.8"},
        "command": "python -m experiments.train --config=experiments/configs/quickstart.py --workdir=DIR",
    }
    (folder / "config.json").write_text(json.dumps(about))
    write_metrics(folder, steps, monitor)
    for step in probes:
        write_probe(folder, step, learnt=step / max(probes))
    if pictures:
        write_pictures(folder / "samples", steps)
    return folder


def write_metrics(folder: Path, steps: int, monitor: bool) -> None:
    rng, lines = np.random.default_rng(0), []
    for step in range(5, steps + 1, 5):
        row = {"step": step, "images": step * BATCH, "loss": 0.06 + np.exp(-step / 60) + 0.02 * rng.random()}
        row |= {"data_wait": 0.02 + 0.01 * rng.random(), "seconds": 0.3 * step}
        lines.append(row | {"images_per_second": 100 + 8 * rng.random(), "grad_norm": rng.random()})
        if monitor and step % 50 == 0:
            lines.append({"step": step, "images": step * BATCH} | monitor_reading(step / steps))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def monitor_reading(progress: float) -> dict[str, float]:
    true = 0.3 - 0.15 * progress
    values = {"loss_true": true, "loss_shuffled": true * (1 + 0.4 * progress), "use": 0.4 * true * progress}
    values |= {"use_error": 0.001, "gradient_norm": 0.02, "latent_dim": 130, "dead_dims": 30 * (1 - progress)}
    values["effective_rank"] = 2 + 40 * progress
    values |= {f"gain/{i:02d}": 0.01 * progress * (SECTIONS - i) - 0.01 for i in range(SECTIONS)}
    return {f"monitor/{name}": value for name, value in values.items()}


def write_probe(folder: Path, step: int, learnt: float) -> None:
    """Results where z gains with `learnt` in 0..1, on every label but the last."""
    labels = {}
    for i, (label, classes) in enumerate(LABELS.items()):
        chance = 1 / classes
        gain = (0.85 - 0.1 * i) * learnt * (1 - chance) * (label != "yaw")
        shares = {"z": chance + gain, "pooled": chance + 0.9 * gain + 0.05, "untrained": 0.4, "pixels": 0.35}
        labels[label] = {name: scores(share) for name, share in shares.items()}
        labels[label]["untrained_features"] = "pooled"
    path = folder / "probe" / str(step) / "results.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({"step": step, "labels": labels}))


def scores(share: float) -> dict:
    return {"linear": share, "linear_ci95": [share - 0.015, share + 0.015], "knn": share - 0.05}


def write_pictures(folder: Path, step: int) -> None:
    def made_up(count: int, hue: float) -> np.ndarray:
        ramp = np.linspace(0, 255, 64)
        image = np.stack([*np.meshgrid(ramp, ramp), np.full((64, 64), 255 * hue)], axis=-1)
        return np.stack([np.roll(image, 7 * i, axis=i % 2) for i in range(count)]).astype(np.uint8)

    columns = [("source", made_up(4, 0.0)), ("target", made_up(4, 0.2))]
    columns += [("generated", made_up(4, 0.3 + 0.2 * i)) for i in range(4)]
    save_grid(folder / f"{step}_views.png", columns, description=f"step {step}, seed 0")
    save_strip(folder / f"{step}_interpolation.png", made_up(9, 0.5), [f"{i / 8:.2f}" for i in range(9)])
    names = ["A", "B", *(str(i) for i in range(SECTIONS))]
    save_strip(folder / f"{step}_sections.png", made_up(SECTIONS + 2, 0.7), names, side=64)
    for early in (100, 200):
        save_grid(folder / f"step_{early:08d}.png", {"source": made_up(2, 0.1), "generated": made_up(2, 0.9)})
