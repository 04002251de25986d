"""The head of the page: what this run is, and what came out of it, in a few plain sentences."""

import math
from collections.abc import Mapping, Sequence

from soda_jax.report import page as html
from soda_jax.report.curves import short
from soda_jax.report.page import Html
from soda_jax.report.record import RunRecord, column, compare, interval, last, monitor_rows, newest_probe


def headline(record: RunRecord) -> Html:
    """Title, verdict, figures."""
    data = record.config["data"]
    size, zoom = f"{data['image_size']} x {data['image_size']} pixels", data.get("zoom", 1)
    near = f" of the middle of each image ({zoom:.3g} times as near)" if zoom != 1 else ""
    subtitle = f"{record.name}, {size}{near}, seed {record.config['seed']}"
    verdict = " ".join(sentence for sentence in (probe_verdict(record), latent_verdict(record)) if sentence)
    words = verdict or "Nothing has been measured yet: this run has neither been probed nor monitored."
    return html.join(
        [
            f"<header><h1>{html.escape(title(record))}</h1>",
            html.paragraph(subtitle, "soft"),
            html.paragraph(words, "verdict"),
            html.facts(figures(record)),
            "</header>",
        ]
    )


def title(record: RunRecord) -> str:
    return f"{record.config['method'].upper()} on {record.config['data']['name']}"


def figures(record: RunRecord) -> dict[str, str]:
    """The row of figures; only those that are known."""
    images, seconds, loss = reached(record, "images"), reached(record, "seconds"), recent_loss(record)
    (_, speeds), (_, waits) = (column(record.metrics, name) for name in ("images_per_second", "data_wait"))
    known = {
        "images trained on": f"{images:,.0f}" if images else "",
        "training time": duration(seconds),
        "images per second": short(median(speeds)) if speeds else "",
        "waiting for data": f"{sum(waits) / len(waits):.0%}" if waits else "",
        "loss (last twentieth)": f"{loss:.3g}" if loss is not None else "",
        "training examples": f"{record.sizes['train']:,}" if "train" in record.sizes else "",
    }
    return {name: value for name, value in known.items() if value}


def reached(record: RunRecord, name: str) -> float | None:
    """The larger of the newest metrics' and the newest checkpoint's: a run that was stopped saves between records."""
    known = [float(x) for x in (last(record.metrics, name), record.saved.get(name)) if x is not None]
    return max(known, default=None)


def recent_loss(record: RunRecord) -> float | None:
    """Mean over the last twentieth of the run: a single loss is mostly noise."""
    _, losses = column(record.metrics, "loss")
    recent = [loss for loss in losses[-max(1, len(losses) // 20) :] if math.isfinite(loss)]
    return sum(recent) / len(recent) if recent else None


def duration(seconds: float | None) -> str:
    """12 s, 3.8 min or 1.67 h."""
    if seconds is None:
        return ""
    if seconds < 60:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.2g} min" if seconds < 6000 else f"{seconds / 3600:.3g} h"


def median(values: Sequence[float]) -> float:
    return sorted(values)[len(values) // 2]


def probe_verdict(record: RunRecord) -> str:
    """One sentence for one label, a count for several."""
    probe = newest_probe(record)
    if probe is None or not probe["labels"]:
        return ""
    labels = {name: s for name, s in probe["labels"].items() if "z" in s and "untrained" in s}
    if not labels:
        return ""
    return single(*next(iter(labels.items()))) if len(labels) == 1 else several(labels)


def single(label: str, scores: Mapping) -> str:
    name = "the class" if label == "label" else label
    low, high = interval(scores["z"])
    return (
        f"A linear probe of z tells {name} right on {scores['z']['linear']:.1%} of the test split (95% "
        f"interval {low * 100:.1f} to {high * 100:.1f}; {baselines(scores)})."
    )


def several(labels: Mapping[str, Mapping]) -> str:
    """How often z beats the untrained encoder, and where it gains most."""
    won = [name for name, scores in labels.items() if compare(scores, "z", "untrained") > 0]
    lost = [name for name, scores in labels.items() if compare(scores, "z", "untrained") < 0]
    best = max(labels, key=lambda name: labels[name]["z"]["linear"] - labels[name]["untrained"]["linear"])
    count = f"On {len(won)} of {len(labels)} labels a linear probe of z beats one of the untrained encoder"
    below = f" On {', '.join(lost)} it stays below." if lost else ""
    example = f" Largest gain: {best}, {labels[best]['z']['linear']:.1%} ({baselines(labels[best])})."
    return f"{count} (95% intervals apart).{below}{example}"


def baselines(scores: Mapping) -> str:
    pixels = f"; raw pixels {scores['pixels']['linear']:.1%}" if "pixels" in scores else ""
    return f"untrained encoder {scores['untrained']['linear']:.1%}{pixels}"


def latent_verdict(record: RunRecord) -> str:
    """What the loss loses without the right z, and how many directions z uses."""
    rows = monitor_rows(record.metrics)
    if not rows:
        return ""
    now = rows[-1]
    times = now["loss_shuffled"] / now["loss_true"]
    return (
        f"Given the z of another image, the denoiser's loss is {times:.3g} times as high; z uses about "
        f"{now['effective_rank']:.0f} of its {now['latent_dim']:.0f} directions."
    )
